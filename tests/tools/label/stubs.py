# SPDX-License-Identifier: Apache-2.0
"""An expert without weights that says what it saw."""

import dataclasses
from typing import Any

import numpy as np

from mtv_jax.core.fields import Field
from tools.data.depth_values import Rejected
from tools.label.base import Expert, Labeller, Licence, Outcome

MEAN = Field(name="mean", shape="1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Means(Expert):
    """The mean of an image, but for those that are too bright; shapes are parities of the width."""

    sidecar: str = "means_v1"
    batch_size: int = 3
    brightest: float = 200.0
    caption: bool = False

    @property
    def licence(self) -> Licence:
        return Licence(name="none", commercial=True)

    def emits(self) -> tuple[Field, ...]:
        return (MEAN,)

    def reads(self, columns) -> tuple[str, ...]:
        return ("caption",) if self.caption else ()

    def load(self, device: str) -> "Meaner":
        return Meaner(self)


class Meaner(Labeller):
    """Keeps the batches it was given."""

    digest = "0" * 64

    def __init__(self, settings: Means, stop_after: int = 10**9):
        self.settings, self.batches, self.left = settings, [], stop_after

    def prepare(self, sample: Any) -> np.ndarray:
        if sample.image.mean() > self.settings.brightest:
            raise Rejected("too bright", f"{sample.image.mean():.0f}")
        return sample.image

    def shape(self, prepared: np.ndarray) -> int:
        return prepared.shape[1] % 2

    def infer(self, prepared: Any) -> list[float]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.batches.append([image.shape[1] for image in prepared])
        return [image.mean() for image in prepared]

    def finish(self, prepared: Any, result: float) -> Outcome:
        odd = prepared.shape[1] % 2
        labels = {"mean": np.asarray([result], np.float32)}
        return Outcome(labels=labels, dropped={"odd columns": 1} if odd else {})
