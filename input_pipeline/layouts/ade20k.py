# SPDX-License-Identifier: Apache-2.0
"""ADE20K of 150 classes (`ADEChallengeData2016`)."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from input_pipeline.decode import DecodeError
from input_pipeline.layouts.base import Layout, read_raster

_CLASSES = 150


@dataclasses.dataclass(frozen=True)
class _Item:
    path: pathlib.Path
    segments: pathlib.Path

    def paths(self) -> tuple[pathlib.Path, ...]:
        return (self.path, self.segments)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ade20k(Layout):
    """`ROOT/images/SPLIT/ADE_val_00000001.jpg`, `ROOT/annotations/SPLIT/ADE_val_00000001.png`.

    Attributes:
        split: "validation" or "training".
    """

    split: str = "validation"

    @property
    def source(self) -> str:
        return (
            "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip (unpacked, "
            "ROOT is the folder ADEChallengeData2016)"
        )

    def find(self) -> Sequence[_Item]:
        truths = self.folder(f"annotations/{self.split}")
        images = sorted(self.folder(f"images/{self.split}").glob("*.jpg"))
        return [_Item(path, truths / f"{path.stem}.png") for path in images]

    def segment_names(self) -> list[str]:
        """The first name of each class in `objectInfo150.txt`."""
        lines = self.text("objectInfo150.txt").splitlines()[1:]
        names = [line.split("\t")[-1].split(",")[0].strip() for line in lines if line.strip()]
        if len(names) != _CLASSES:
            raise self.damaged(f"objectInfo150.txt names {len(names)} classes, not {_CLASSES}")
        return names

    def segments(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """Classes from 0; `eval_data.IGNORED` where the file says 0, "other".

        Raises:
            UserError: the file is not the distributor's.
        """
        path = self.items[index].segments
        try:
            raster = read_raster(path)
        except DecodeError as error:
            raise self.damaged(str(error)) from error
        if raster.dtype != np.uint8 or raster.max() > _CLASSES:
            raise self.damaged(
                f"{path} holds {raster.dtype} up to {raster.max()}, not classes up to {_CLASSES}"
            )
        return raster - np.uint8(1)  # 0 wraps to 255
