# SPDX-License-Identifier: Apache-2.0
"""SPair-71k: pairs of images of one class with the keypoints that both show.

Read as Probe3D (arXiv 2404.08636) reads it: images are padded with white to squares, below and at
the right; of each class and difference of viewpoint the first 200 pairs of a seeded shuffle count.
Probe3D shuffles files in the order in which the disk lists them; here they are sorted first.
"""

import dataclasses
import functools
import json
import pathlib
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from input_pipeline.eval_pairs import KeypointPair, KeypointPairs, padded
from input_pipeline.layouts.base import Layout

T = TypeVar("T")

_SPLITS = {"train": "trn", "valid": "val", "test": "test"}
_VIEWS = {"view0": 0, "view1": 1, "view2": 2, "all": None}
_SEED = 20


@dataclasses.dataclass(frozen=True)
class _Item:
    path: pathlib.Path
    annotation: pathlib.Path

    def paths(self) -> tuple[pathlib.Path, ...]:
        return (self.path, self.annotation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spair(Layout, KeypointPairs):
    """`ROOT/{JPEGImages,ImageAnnotation}/cat/2008_000112.*`, `ROOT/PairAnnotation/test/*.json`.

    Attributes:
        split: "test", "valid" or "train".
        category: class whose images these are; "" for all.
    """

    split: str = "test"
    category: str = ""

    @property
    def source(self) -> str:
        return "https://cvlab.postech.ac.kr/research/SPair-71k (SPair-71k.tar.gz)"

    def open(self) -> None:
        """Raises a `UserError` when a file is missing, or is not SPair-71k's."""
        super().open()
        rows = self._rows
        for pair in self._annotated:
            self._shown_by_both(pair, rows)

    def find(self) -> Sequence[_Item]:
        root = self.folder("JPEGImages").parent
        seen = {(p.category, name) for p in self._annotated for name in (p.source, p.target)}
        return [
            _Item(
                root / "JPEGImages" / category / name,
                (root / "ImageAnnotation" / category / name).with_suffix(".json"),
            )
            for category, name in sorted(seen)
        ]

    def categories(self) -> list[str]:
        """The classes that pairs are of."""
        return sorted({pair.category for pair in self._annotated})

    def only(self, category: str) -> "Spair":
        """The images of one class."""
        return dataclasses.replace(self, category=category)

    def views(self) -> Sequence[str]:
        """By the annotated difference of viewpoint; and all."""
        return tuple(_VIEWS)

    def image(self, index: int) -> UInt8[np.ndarray, "s s 3"]:
        """Padded to a square."""
        return padded(super().image(index))

    def pairs(self, view: str, *, count: int, size: int) -> list[KeypointPair]:
        """The first pairs of a shuffle; keypoints lie on whole pixels of the squares."""
        wanted = [p for p in self._annotated if _VIEWS[view] in (None, p.view)]
        random.Random(_SEED).shuffle(wanted)
        rows = self._rows
        return [self._pair(pair, rows, size) for pair in wanted[:count]]

    def _pair(self, pair: "_Annotated", rows: "_Rows", size: int) -> KeypointPair:
        both = self._shown_by_both(pair, rows)
        source, target = rows[pair.category, pair.source], rows[pair.category, pair.target]
        left, top, right, bottom = pair.target_box
        return KeypointPair(
            source=source,
            target=target,
            source_points=_placed(self._keypoints(source), both, pair.source_side, size),
            target_points=_placed(self._keypoints(target), both, pair.target_side, size),
            scale=max(right - left, bottom - top) / pair.target_side,
        )

    def _shown_by_both(self, pair: "_Annotated", rows: "_Rows") -> Bool[np.ndarray, " k"]:
        """Which keypoints both images of a pair show."""
        names = pair.source, pair.target
        first, second = (self._keypoints(rows[pair.category, name]).shown for name in names)
        if len(first) != len(second):
            raise self.damaged(
                f"the {pair.category} images {names[0]} and {names[1]} are a pair, but list "
                f"{len(first)} and {len(second)} keypoints"
            )
        return first & second

    def _keypoints(self, row: int) -> "_Keypoints":
        return self._parsed(_read_keypoints, self.items[row].annotation)

    @property
    def _rows(self) -> "_Rows":
        return {(item.path.parent.name, item.path.name): i for i, item in enumerate(self.items)}

    @property
    def _annotated(self) -> "list[_Annotated]":
        paths = _listed(self.folder(f"PairAnnotation/{_SPLITS[self.split]}"))
        pairs = [self._parsed(_read_pair, path) for path in paths]
        return [pair for pair in pairs if self.category in ("", pair.category)]

    def _parsed(self, read: Callable[[pathlib.Path], T], path: pathlib.Path) -> T:
        try:
            return read(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            name = path.relative_to(self.root)
            raise self.damaged(f"{name} is not SPair-71k's: {error!r}") from error


_Rows = dict[tuple[str, str], int]  # by class and file


class _Annotated(NamedTuple):
    category: str
    view: int
    source: str
    target: str
    source_side: int  # the longer one
    target_side: int
    target_box: tuple[int, ...]


class _Keypoints(NamedTuple):
    pixels: Int64[np.ndarray, "k 2"]
    shown: Bool[np.ndarray, " k"]


def _placed(
    known: _Keypoints, chosen: Bool[np.ndarray, " k"], side: int, size: int
) -> Float64[np.ndarray, "n 2"]:
    return np.trunc(known.pixels[chosen] * size / side) / size


@functools.lru_cache(maxsize=4)
def _listed(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("*.json"))


@functools.lru_cache(maxsize=100_000)
def _read_pair(path: pathlib.Path) -> _Annotated:
    entry: dict[str, Any] = json.loads(path.read_text())
    left, top, right, bottom = entry["trg_bndbox"]
    return _Annotated(
        category=entry["category"],
        view=entry["viewpoint_variation"],
        source=entry["src_imname"],
        target=entry["trg_imname"],
        source_side=max(entry["src_imsize"][:2]),
        target_side=max(entry["trg_imsize"][:2]),
        target_box=(left, top, right, bottom),
    )


@functools.lru_cache(maxsize=4096)
def _read_keypoints(path: pathlib.Path) -> _Keypoints:
    known = json.loads(path.read_text())["kps"]
    places = [known[str(k)] for k in range(len(known))]
    pixels = np.asarray([place or (0, 0) for place in places]).astype(np.int64)
    return _Keypoints(pixels.reshape(-1, 2), np.asarray([place is not None for place in places]))
