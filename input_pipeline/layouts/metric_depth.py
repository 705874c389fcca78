# SPDX-License-Identifier: Apache-2.0
"""Test sets of metric depth: NYUv2 and KITTI's Eigen split, as lists of files.

Both follow the lists that BTS (arXiv 1907.10326) made and later work shares: an image and a 16-bit
depth map a line. Maps are metres here, 0 where depth is unknown, out of range, or outside the crop
that is scored (MTV section 10).
"""

import abc
import dataclasses
import logging
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from input_pipeline.decode import DecodeError
from input_pipeline.layouts.base import Layout, read_raster
from mtv_jax.core.errors import UserError

COLUMN = "metric_depth"
_NEAREST = 1e-3  # metres


@dataclasses.dataclass(frozen=True)
class _Item:
    path: pathlib.Path
    depth: pathlib.Path

    def paths(self) -> tuple[pathlib.Path, ...]:
        return (self.path, self.depth)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _MetricDepth(Layout):
    """What both share."""

    @property
    @abc.abstractmethod
    def farthest(self) -> float:
        """Metres; what is farther is unknown."""

    @property
    @abc.abstractmethod
    def units(self) -> float:
        """What a metre is in a map's file."""

    @abc.abstractmethod
    def crop(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns that are scored."""

    def listed(self, name: str) -> list[tuple[str, str]]:
        """Images and maps of a list; lines whose map is "None" have no truth."""
        pairs = []
        for number, line in enumerate(self.text(name).splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            if len(words) < 2:
                raise self.damaged(f"line {number} of {name} is not an image and a depth map")
            if words[1] != "None":
                pairs.append((words[0].lstrip("/"), words[1].lstrip("/")))
        return pairs

    def require(self, name: str) -> None:
        """Raises a `UserError` for any map but `metric_depth`."""
        if name != COLUMN:
            raise UserError(f"{self} has no maps {name!r}, but {COLUMN!r}")

    def raster(self, index: int, name: str) -> Float32[np.ndarray, "h w"]:
        """Metres."""
        self.require(name)
        try:
            raster = read_raster(self.items[index].depth)
            if raster.dtype != np.uint16:
                raise DecodeError(f"{self.items[index].depth} has {raster.dtype}, not 16 bits")
        except DecodeError as error:
            logging.warning("unreadable: depth %d of %s: %s", index, self, error)
            return np.zeros((1, 1), np.float32)
        depth = raster.astype(np.float32) / np.float32(self.units)
        known = np.zeros(depth.shape, bool)
        crop = self.crop(*depth.shape)
        known[crop] = (depth[crop] > _NEAREST) & (depth[crop] < self.farthest)
        return np.where(known, depth, np.float32(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class NyuDepth(_MetricDepth):
    """`ROOT/bathroom/rgb_00045.jpg`, `ROOT/bathroom/sync_depth_00045.png`, `ROOT/nyu_test.txt`.

    Attributes:
        pairs: the file that lists images and maps.
    """

    pairs: str = "nyu_test.txt"

    @property
    def source(self) -> str:
        return (
            "https://github.com/cleinc/bts (the official test split of NYU Depth V2 as files, and "
            "its list nyu_test.txt)"
        )

    @property
    def farthest(self) -> float:
        return 10.0

    @property
    def units(self) -> float:
        return 1000.0

    def crop(self, height: int, width: int) -> tuple[slice, slice]:
        """Eigen's, for 480 × 640."""
        if (height, width) != (480, 640):
            raise self.damaged(f"a depth map of {height} x {width} pixels, not 480 x 640")
        return slice(45, 471), slice(41, 601)

    def find(self) -> Sequence[_Item]:
        root = self.folder("")
        return [_Item(root / image, root / depth) for image, depth in self.listed(self.pairs)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class KittiEigen(_MetricDepth):
    """`ROOT/input/2011_09_26/…/image_02/data/0000000069.png`, `ROOT/gt_depth/2011_09_26_drive_…`.

    Attributes:
        pairs: the file that lists images and maps.
    """

    pairs: str = "kitti_eigen_test.txt"

    @property
    def source(self) -> str:
        return (
            "https://www.cvlibs.net/datasets/kitti (raw data below input/, the annotated depth "
            "maps below gt_depth/; the list is that of https://github.com/cleinc/bts)"
        )

    @property
    def farthest(self) -> float:
        return 80.0

    @property
    def units(self) -> float:
        return 256.0

    def crop(self, height: int, width: int) -> tuple[slice, slice]:
        """Garg's, by shares of the sides."""
        rows = slice(int(0.40810811 * height), int(0.99189189 * height))
        return rows, slice(int(0.03594771 * width), int(0.96405229 * width))

    def find(self) -> Sequence[_Item]:
        images, depths = self.folder("input"), self.folder("gt_depth")
        return [_Item(images / image, depths / depth) for image, depth in self.listed(self.pairs)]
