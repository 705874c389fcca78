# SPDX-License-Identifier: Apache-2.0
"""Tags by RAM++ (arXiv 2310.15200): those of its 4,585 that exceed their own thresholds."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float32

from tools.label.base import Labeller, Licence, Outcome, Sample, digest_of
from tools.label.experts import hub, ram_plus_files
from tools.label.tagging import Tagger


@dataclasses.dataclass(frozen=True, kw_only=True)
class RamPlus(Tagger):
    """Tags of every image, the most probable first.

    Attributes:
        weights: the file ram_plus_swin_large_14m.pth.
        tag_list: the file ram_tag_list.txt.
        thresholds: the file ram_tag_list_threshold.txt.
    """

    sidecar: str = "ram_tags_v1"
    weights: str = ""
    tag_list: str = ""
    thresholds: str = ""

    kind: ClassVar[str] = "ram"

    @property
    def licence(self) -> Licence:
        return Licence(name="Apache-2.0", commercial=True)

    def load(self, device: str) -> "_Tagger":
        return _Tagger(self, device)


class _Tagger(Labeller):
    def __init__(self, settings: RamPlus, device: str):
        self._network = hub.placed(
            ram_plus_files.load_ram_plus(
                weights=settings.weights,
                tags=settings.tag_list,
                thresholds=settings.thresholds,
            ),
            device,
        )
        self._settings = settings
        self.digest = digest_of(settings.weights, settings.tag_list, settings.thresholds)

    def prepare(self, sample: Sample) -> Float32[np.ndarray, "3 384 384"]:
        return ram_plus_files.preprocess(sample.image)

    def infer(self, prepared: Sequence[np.ndarray]) -> list[list[tuple[str, float]]]:
        from tools.label.experts.ram_plus_network import tag

        return tag(self._network, np.stack(prepared))

    def finish(self, prepared: np.ndarray, result: list[tuple[str, float]]) -> Outcome:
        del prepared
        if not result:
            return Outcome(reason="no tag above its threshold")
        names, scores = zip(*result, strict=True)
        return Outcome(labels=self._settings.best(names, np.asarray(scores)))
