# SPDX-License-Identifier: Apache-2.0
"""NYU Depth V2 as New York University ships it: two MATLAB files.

Images and maps are those that BTS (arXiv 1907.10326) extracts for `NyuDepth`, without its JPEG
compression: the white border is black, depth is the sensor's, in whole millimetres.
"""

import dataclasses
import functools
import importlib
import os
import pathlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from input_pipeline.decode import DecodeError
from input_pipeline.layouts.base import Item
from input_pipeline.layouts.metric_depth import MetricDepth, eigen_scored
from mtv_jax.core.errors import UserError

_IMAGES, _SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
# Of one row: MATLAB's order, turned around.
_SHAPES = {"images": (3, 640, 480), "rawDepths": (640, 480)}
_INSIDE = (slice(7, 474), slice(7, 632))  # the border


@dataclasses.dataclass(frozen=True, kw_only=True)
class NyuMat(MetricDepth):
    """`ROOT/nyu_depth_v2_labeled.mat` and `ROOT/splits.mat`.

    Attributes:
        split: "test" (654 images) or "train" (795).
    """

    split: str = "test"

    @property
    def source(self) -> str:
        return (
            "http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat and "
            "http://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat"
        )

    def find(self) -> Sequence[Item[int]]:
        """The rows of a split, in its order."""
        root = self.folder("")
        rows = self._split_rows(root / _SPLITS)
        images = self._images(root / _IMAGES)
        if rows.min(initial=0) < 0 or rows.max(initial=0) >= images:
            raise self.damaged(
                f"{_SPLITS} names images {rows.min() + 1} to {rows.max() + 1}, "
                f"{_IMAGES} has {images}"
            )
        return [Item(root / _IMAGES, int(row)) for row in rows]

    def pixels(self, item: Item[int]) -> UInt8[np.ndarray, "480 640 3"]:
        image = np.zeros((480, 640, 3), np.uint8)
        image[_INSIDE] = _row(item, "images")[_INSIDE]
        return image

    def metres(self, item: Item[int]) -> Float32[np.ndarray, "480 640"]:
        return np.floor(_row(item, "rawDepths") * np.float32(1000)) / np.float32(1000)

    def valid(self, depth: Float32[np.ndarray, "480 640"]) -> Bool[np.ndarray, "480 640"]:
        return eigen_scored(depth)

    def _split_rows(self, path: pathlib.Path) -> Int64[np.ndarray, " b"]:
        """From 0."""
        reader = _package("scipy.io")
        try:
            found = reader.loadmat(str(path))[f"{self.split}Ndxs"]
            return np.asarray(found, np.int64).ravel() - 1
        except Exception as error:  # of a damaged file, loadmat raises whatever it meets
            raise self.damaged(f"{path.name} cannot be read ({error!r})") from error

    def _images(self, path: pathlib.Path) -> int:
        """How many there are."""
        _package("h5py")
        try:
            file = _opened(path, os.getpid())
            shapes = {name: file[name].shape for name in _SHAPES}
        except (OSError, KeyError, AttributeError, RuntimeError) as error:
            raise self.damaged(f"{path.name} cannot be read ({error})") from error
        count = shapes["images"][:1]
        if shapes != {name: (*count, *shape) for name, shape in _SHAPES.items()}:
            raise self.damaged(f"{path.name} has arrays of the shapes {shapes}")
        return shapes["images"][0]


def _row(item: Item[int], name: str) -> np.ndarray:
    """An image or a map, [480, 640, …]."""
    try:
        return _opened(item.path, os.getpid())[name][item.extra].T
    except (OSError, RuntimeError) as error:
        raise DecodeError(f"{item.path}: row {item.extra} of {name}: {error}") from error


@functools.lru_cache(maxsize=2)
def _opened(path: pathlib.Path, process: int) -> Any:
    """The file, once a process: the offset of an open one is shared after a fork."""
    del process
    return _package("h5py").File(path, "r")


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            "NYU Depth V2's MATLAB files need the packages h5py and scipy: pip install h5py scipy"
        ) from error
