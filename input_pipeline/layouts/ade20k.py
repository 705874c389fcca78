# SPDX-License-Identifier: Apache-2.0
"""ADE20K of 150 classes (`ADEChallengeData2016`)."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from input_pipeline.decode import DecodeError, open_header
from input_pipeline.layouts.base import Item, Layout, read_raster
from mtv_jax.core.errors import UserError

_CLASSES = 150


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

    def find(self) -> Sequence[Item[pathlib.Path]]:
        """Whatever has an image or annotations; `open` misses the other one."""
        images = self.folder(f"images/{self.split}")
        truths = self.folder(f"annotations/{self.split}")
        names = {path.stem for path in (*images.glob("*.jpg"), *truths.glob("*.png"))}
        return [Item(images / f"{name}.jpg", truths / f"{name}.png") for name in sorted(names)]

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
        try:
            return _segments(self.items[index])
        except DecodeError as error:
            raise self.damaged(str(error)) from error

    def faults(self) -> Iterator[str]:
        """Annotations that are damaged, or not as large as their image."""
        for item in self.items:
            try:
                shape = _segments(item).shape
                width, height = open_header(item.path.read_bytes()).size
            except (OSError, UserError) as error:
                yield str(error)
                continue
            if shape != (height, width):
                yield f"{item.extra} has {shape[0]} x {shape[1]} pixels, not {height} x {width}"


def _segments(item: Item[pathlib.Path]) -> UInt8[np.ndarray, "h w"]:
    raster = read_raster(item.extra)
    if raster.dtype != np.uint8 or raster.max() > _CLASSES:
        raise DecodeError(
            f"{item.extra} holds {raster.dtype} up to {raster.max()}, not classes up to {_CLASSES}"
        )
    return raster - np.uint8(1)  # 0 wraps to 255
