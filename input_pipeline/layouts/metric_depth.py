# SPDX-License-Identifier: Apache-2.0
"""Metric depth as lists of files: test sets of NYUv2 and KITTI's Eigen split, NYUv2 for training.

All follow the lists that BTS (arXiv 1907.10326) made and later work shares: an image and a 16-bit
depth map a line. Maps are metres here, 0 where depth is unknown, out of range, or outside the crop
that is scored (MTV section 10).
"""

import abc
import dataclasses
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

from input_pipeline.decode import DecodeError
from input_pipeline.layouts.base import Item, Layout, read_raster
from mtv_jax.core.errors import UserError

COLUMN = "metric_depth"
_NEAREST = 1e-3  # metres
_SEEN = (slice(45, 472), slice(43, 608))  # of a frame of NYUv2: inside its white border
_BTS = "https://github.com/cleinc/bts"


class MetricDepth(Layout):
    """What all sets of metric depth share."""

    @abc.abstractmethod
    def metres(self, item: Any) -> Float32[np.ndarray, "h w"]:
        """A record's whole map, 0 where unknown; OSError or `DecodeError` if it is damaged."""

    @abc.abstractmethod
    def valid(self, depth: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
        """Where a map counts."""

    def require(self, name: str) -> None:
        """Raises a `UserError` for any map but `metric_depth`."""
        if name != COLUMN:
            raise UserError(f"{self} has no maps {name!r}, but {COLUMN!r}")

    def raster(self, index: int, name: str) -> Float32[np.ndarray, "h w"]:
        """Metres."""
        self.require(name)
        try:
            depth = self.metres(self.items[index])
        except (OSError, DecodeError) as error:
            logging.warning("unreadable: depth %d of %s: %s", index, self, error)
            return np.zeros((1, 1), np.float32)
        return np.where(self.valid(depth), depth, np.float32(0))

    def faults(self) -> Iterator[str]:
        """Depth maps that are damaged."""
        for item in self.items:
            try:
                self.metres(item)
            except (OSError, DecodeError) as error:
                yield str(error)


def scored(
    depth: Float32[np.ndarray, "h w"], crop: tuple[slice, slice], farthest: float
) -> Bool[np.ndarray, "h w"]:
    """Inside a crop, more than a millimetre and less than `farthest` metres away."""
    inside = np.zeros(depth.shape, bool)
    inside[crop] = True
    return inside & (depth > _NEAREST) & (depth < farthest)


def eigen_scored(depth: Float32[np.ndarray, "480 640"]) -> Bool[np.ndarray, "480 640"]:
    """Where NYUv2's test maps count: Eigen's crop, up to ten metres."""
    return scored(depth, (slice(45, 471), slice(41, 601)), 10.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Listed(MetricDepth):
    """A list of files.

    Attributes:
        pairs: the file that lists images and maps.
        folders: those of the images and of the maps.
        units: what a metre is in a map's file.
    """

    pairs: str
    folders: ClassVar[tuple[str, str]] = ("", "")
    units: ClassVar[float] = 1000.0

    def find(self) -> Sequence[Item[pathlib.Path]]:
        """The lines; those whose map is "None" have no truth and are left out."""
        images, depths = map(self.folder, self.folders)
        items = []
        for number, line in enumerate(self.text(self.pairs).splitlines(), start=1):
            words = line.split()
            if len(words) == 1:
                raise self.damaged(f"line {number} of {self.pairs} is not an image and a depth map")
            if words and words[1] != "None":
                image, depth = (word.lstrip("/") for word in words[:2])
                items.append(Item(images / image, depths / depth))
        return items

    def metres(self, item: Item[pathlib.Path]) -> Float32[np.ndarray, "h w"]:
        raster = read_raster(item.extra)
        if raster.dtype != np.uint16:
            raise DecodeError(f"{item.extra} has {raster.dtype}, not 16 bits")
        return raster.astype(np.float32) / np.float32(self.units)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KittiEigen(_Listed):
    """The test set: `ROOT/input/2011_09_26/…/0000000069.png`, `ROOT/gt_depth/2011_09_26_…`."""

    pairs: str = "eigen_test_files_with_gt.txt"
    folders: ClassVar[tuple[str, str]] = ("input", "gt_depth")
    units: ClassVar[float] = 256.0

    @property
    def source(self) -> str:
        return (
            "https://www.cvlibs.net/datasets/kitti/raw_data.php (below ROOT/input) and "
            "https://s3.eu-central-1.amazonaws.com/avg-kitti/data_depth_annotated.zip (its drives, "
            "those of train/ and val/ side by side, below ROOT/gt_depth); the list is in "
            f"train_test_inputs/ of {_BTS}"
        )

    def valid(self, depth: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
        """Garg's crop, by shares of the sides, up to 80 metres."""
        height, width = depth.shape
        rows = slice(int(0.40810811 * height), int(0.99189189 * height))
        columns = slice(int(0.03594771 * width), int(0.96405229 * width))
        return scored(depth, (rows, columns), 80.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NyuDepth(_Listed):
    """The test set: `ROOT/bathroom/rgb_00045.jpg`, `ROOT/bathroom/sync_depth_00045.png`."""

    pairs: str = "nyudepthv2_test_files_with_gt.txt"

    @property
    def source(self) -> str:
        return (
            f"{_BTS} (utils/extract_official_train_test_set_from_mat.py makes ROOT, the folder "
            "test, from nyu_depth_v2_labeled.mat; the list is in train_test_inputs/)"
        )

    def metres(self, item: Item[pathlib.Path]) -> Float32[np.ndarray, "480 640"]:
        return _frame(super().metres(item), item.extra)

    def valid(self, depth: Float32[np.ndarray, "480 640"]) -> Bool[np.ndarray, "480 640"]:
        return eigen_scored(depth)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NyuTrain(_Listed):
    """Training frames: `ROOT/bathroom_0001/rgb_00000.jpg`, `…/sync_depth_00000.png`.

    Images and maps are cut to the inside of the white border; all depth up to ten metres counts.
    """

    pairs: str = "nyudepthv2_train_files_with_gt.txt"

    @property
    def source(self) -> str:
        return f"{_BTS} (its sync.zip, ROOT is the folder sync; the list is in train_test_inputs/)"

    def pixels(self, item: Item[pathlib.Path]) -> UInt8[np.ndarray, "427 565 3"]:
        return _frame(super().pixels(item), item.path)[_SEEN]

    def metres(self, item: Item[pathlib.Path]) -> Float32[np.ndarray, "427 565"]:
        return _frame(super().metres(item), item.extra)[_SEEN]

    def valid(self, depth: Float32[np.ndarray, "427 565"]) -> Bool[np.ndarray, "427 565"]:
        return (depth > 0) & (depth <= 10.0)


def _frame(array: Shaped[np.ndarray, "h w *c"], path: pathlib.Path) -> np.ndarray:
    """A whole frame of NYUv2; `DecodeError` if it is something else."""
    height, width = array.shape[:2]
    if (height, width) != (480, 640):
        raise DecodeError(f"{path} has {height} x {width} pixels, not 480 x 640")
    return array
