# SPDX-License-Identifier: Apache-2.0
"""NAVI's images in the wild: objects with poses and depth, in pairs of nearby viewpoints.

Read as Probe3D (arXiv 2404.08636) reads it: short side to 1024 pixels, every other one of them kept
(512), the centre square, the square around the object, 512 again, without smoothing. Probe3D draws
partners with PyTorch in the order in which the disk lists files; here objects and images are sorted
and partners drawn with NumPy, from the same images.
"""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from PIL import Image, ImageOps

from input_pipeline.decode import DecodeError
from input_pipeline.eval_pairs import TwoViews, ViewPair, relative_degrees
from input_pipeline.layouts.base import Layout, read_raster

SIZE = 512
_SHORT_SIDE = 1024
_EVERY = 4
_MOST_DEGREES = 120.0
_SEED = 8


@dataclasses.dataclass(frozen=True)
class _Item:
    path: pathlib.Path
    depth: pathlib.Path
    name: str
    focal_length: float
    size: tuple[int, int]  # height, width for which the focal length holds
    rotation: tuple[float, ...]  # quaternion w, x, y, z
    translation: tuple[float, ...]  # millimetres

    def paths(self) -> tuple[pathlib.Path, ...]:
        return (self.path, self.depth)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Navi(Layout, TwoViews):
    """`ROOT/OBJECT/wild_set/{images/000.jpg,depth/000.png,annotations.json}`.

    Attributes:
        thing: object whose images these are; "" for all.
    """

    thing: str = ""

    @property
    def source(self) -> str:
        return "https://storage.googleapis.com/gresearch/navi-dataset/navi_v1.tar.gz"

    def open(self) -> None:
        """Raises a `UserError` when a file is missing, or a depth map has another form."""
        super().open()
        for item in self.items:
            try:
                _check_depth(item.depth)
            except (OSError, DecodeError) as error:
                raise self.damaged(f"a depth map cannot be read ({error})") from error

    def find(self) -> Sequence[_Item]:
        things = [self.thing] if self.thing else self.things()
        return [item for thing in things for item in self._items_of(thing)]

    def things(self) -> list[str]:
        """Objects with images in the wild."""
        return sorted(path.parent.name for path in self.folder("").glob("*/wild_set"))

    def parts(self) -> "list[Navi]":
        """Objects, one by one."""
        return [dataclasses.replace(self, thing=thing) for thing in self.things()]

    def image(self, index: int) -> UInt8[np.ndarray, "512 512 3"]:
        """The square around the object; black, and logged, if it cannot be read."""
        return self._view(index).image

    def points(self, index: int, side: int) -> Float32[np.ndarray, "side side 3"]:
        """Metres in the camera's frame of every 512 / side-th pixel; 0 off the object."""
        return self._view(index).points[:: SIZE // side, :: SIZE // side]

    def focal(self, index: int, size: int) -> Float64[np.ndarray, "2"]:
        """Focal length in pixels, twice."""
        return np.full(2, self._view(index).focal * size / SIZE)

    def pose(self, index: int) -> Float64[np.ndarray, "4 4"]:
        """From the object's frame to the camera's, metres."""
        item = self.items[index]
        pose = np.eye(4)
        pose[:3, :3] = rotation_matrix(np.asarray(item.rotation))
        pose[:3, 3] = np.asarray(item.translation) / 1000
        return pose

    def pairs(self) -> list[ViewPair]:
        """A partner for every fourth image, drawn from those of its object up to 120° away."""
        rng = np.random.default_rng(_SEED)
        found, row = [], 0
        for thing in self.things():
            rotations = [rotation_matrix(np.asarray(i.rotation)) for i in self._items_of(thing)]
            angles = relative_degrees(np.asarray(rotations))
            for own in range(len(angles)):
                near = np.flatnonzero((angles[own] > 0) & (angles[own] <= _MOST_DEGREES))
                partner = int(rng.choice(near)) if len(near) else -1
                wanted = self.thing in ("", thing) and partner >= 0 and (row + own) % _EVERY == 0
                if wanted:
                    first = 0 if self.thing else row
                    found.append(ViewPair(first + own, first + partner, angles[own, partner]))
            row += len(angles)
        return found

    def _items_of(self, thing: str) -> list[_Item]:
        folder = self.folder(f"{thing}/wild_set")
        try:
            entries = self.json(f"{thing}/wild_set/annotations.json")
            return [_item(folder, entry) for entry in sorted(entries, key=lambda e: e["filename"])]
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            name = f"{thing}/wild_set/annotations.json"
            raise self.damaged(f"{name} is not NAVI's: {error!r}") from error

    def _view(self, index: int) -> "_View":
        try:
            return _read_view(self.items[index])
        except (OSError, DecodeError) as error:
            logging.warning("unreadable: image %d of %s: %s", index, self, error)
            black, nowhere = np.zeros((2, SIZE, SIZE, 3))
            return _View(black.astype(np.uint8), nowhere.astype(np.float32), 1.0)


class _View(NamedTuple):
    image: UInt8[np.ndarray, "512 512 3"]
    points: Float32[np.ndarray, "512 512 3"]
    focal: float  # pixels


def _item(folder: pathlib.Path, entry: dict[str, Any]) -> _Item:
    name = entry["filename"].split(".")[0]
    camera = entry["camera"]
    return _Item(
        path=folder / "images" / f"{name}.jpg",
        depth=folder / "depth" / f"{name}.png",
        name=name,
        focal_length=float(camera["focal_length"]),
        size=(int(entry["image_size"][0]), int(entry["image_size"][1])),
        rotation=tuple(map(float, camera["q"])),
        translation=tuple(map(float, camera["t"])),
    )


@functools.lru_cache(maxsize=2)
def _read_view(item: _Item) -> _View:
    with Image.open(item.path) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    small = picture.resize(_short_side(picture.size), Image.Resampling.BICUBIC)
    _check_depth(item.depth)
    stored = Image.fromarray(read_raster(item.depth))
    codes = np.asarray(stored.resize(_short_side(stored.size), Image.Resampling.NEAREST))
    image, codes = _centre(np.asarray(small)), _centre(codes)
    depth = metres(codes)
    focal = item.focal_length * SIZE / min(item.size)
    places = (np.arange(SIZE) + 0.5 - SIZE / 2) / focal
    rays = np.stack([*np.meshgrid(places, places), np.ones((SIZE, SIZE))], axis=-1)
    box = object_square(depth > 0)
    points = (rays * depth[..., None]).astype(np.float32)
    image, points = image[box], points[box]
    return _View(
        image=_nearest(image, SIZE, SIZE),
        points=_nearest(points, SIZE, SIZE),
        focal=focal * SIZE / min(image.shape[:2]),
    )


def _check_depth(path: pathlib.Path) -> None:
    """Raises an error when the header is not that of a PNG of 16 bits."""
    with Image.open(path) as opened:
        if not opened.mode.startswith("I"):
            raise DecodeError(f"{path} is not a PNG of one channel and 16 bits")


def metres(codes: np.ndarray) -> Float64[np.ndarray, "h w"]:
    """Depth of NAVI's 16-bit maps, which hold 655,350 / millimetres; 0 where they hold 0."""
    known = codes > 0
    return np.where(known, 65_535 * 10 / np.maximum(codes, 1) / 1000, 0.0)


def object_square(mask: np.ndarray) -> tuple[slice, slice]:
    """The square around a mask, moved inside the image; all of it if the mask is empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return slice(None), slice(None)
    low = np.asarray([rows[0], columns[0]])
    sides = np.asarray([rows[-1], columns[-1]]) - low
    pad = sides.max() - sides
    start = low - pad // 2
    if (start < 0).any() or (start + sides.max() > mask.shape).any():
        start = np.maximum(low - pad, 0)
    stop = start + max(sides.max(), 1)
    return slice(start[0], stop[0]), slice(start[1], stop[1])


def rotation_matrix(quaternion: np.ndarray) -> Float64[np.ndarray, "3 3"]:
    """Of a quaternion (w, x, y, z) of any length."""
    w, *vector = quaternion / np.linalg.norm(quaternion)
    x, y, z = vector
    cross = np.asarray([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def _short_side(size: tuple[int, int]) -> tuple[int, int]:
    factor = _SHORT_SIDE / min(size)
    return int(size[0] * factor), int(size[1] * factor)


def _centre(array: np.ndarray) -> np.ndarray:
    """The middle square after the short side went to 512."""
    height, width = array.shape[:2]
    short = min(height, width)
    small = _nearest(array, SIZE * height // short, SIZE * width // short)
    top, left = (round((side - SIZE) / 2) for side in small.shape[:2])
    return small[top : top + SIZE, left : left + SIZE]


def _nearest(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixel ⌊i · old / new⌋, as PyTorch and OpenCV have it."""
    rows = np.arange(height) * array.shape[0] // height
    columns = np.arange(width) * array.shape[1] // width
    return array[rows[:, None], columns]
