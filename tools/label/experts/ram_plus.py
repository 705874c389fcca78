# SPDX-License-Identifier: Apache-2.0
"""Tags by RAM++ (arXiv 2310.15200): those of its 4,585 that exceed their own thresholds."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from tools.data.depth_values import Rejected
from tools.label.base import Labeller, Labels, Licence, Sample, digest_of
from tools.label.experts import hub, ram_plus_files
from tools.label.tagging import Tagger


@dataclasses.dataclass(frozen=True, kw_only=True)
class RamPlus(Tagger):
    """Tags of every image, the most probable first.

    Attributes:
        weights: the file ram_plus_swin_large_14m.pth.
        tags: the file ram_tag_list.txt.
        thresholds: the file ram_tag_list_threshold.txt.
    """

    weights: str = ""
    tags: str = ""
    thresholds: str = ""

    @property
    def licence(self) -> Licence:
        return Licence(name="Apache-2.0", commercial=True)

    def load(self, device: str) -> "_Tagger":
        return _Tagger(self, device)


class _Tagger(Labeller):
    def __init__(self, settings: RamPlus, device: str):
        self._network = hub.placed(
            ram_plus_files.load_ram_plus(
                weights=settings.weights, tags=settings.tags, thresholds=settings.thresholds
            ),
            device,
        )
        self._settings = settings
        self.digest = digest_of(settings.weights, settings.tags, settings.thresholds)

    def prepare(self, sample: Sample) -> Float32[np.ndarray, "3 384 384"]:
        return ram_plus_files.preprocess(sample.image)

    def label(self, prepared: Sequence[np.ndarray]) -> list[Labels | Rejected]:
        from tools.label.experts.ram_plus_network import tag

        return [self._labels(found) for found in tag(self._network, np.stack(prepared))]

    def _labels(self, found: list[tuple[str, float]]) -> Labels | Rejected:
        if not found:
            return Rejected("no tag above its threshold", "")
        names, scores = zip(*found, strict=True)
        return self._settings.best(names, np.asarray(scores))
