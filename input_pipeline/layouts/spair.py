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
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from input_pipeline.layouts.base import Layout

_SPLITS = {"train": "trn", "valid": "val", "test": "test"}


@dataclasses.dataclass(frozen=True)
class _Item:
    path: pathlib.Path
    annotation: pathlib.Path

    def paths(self) -> tuple[pathlib.Path, ...]:
        return (self.path, self.annotation)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two images and the places of their keypoints, in [0, 1] of the padded square.

    Attributes:
        source: row of the image whose keypoints are looked for.
        target: row of the image in which they are.
        view: 0, 1 or 2: how different the viewpoints are.
        source_points: (x, y).
        target_points: the same keypoints in the other image.
        scale: the longer side of the target's box as a share of the square.
    """

    source: int
    target: int
    view: int
    source_points: Float64[np.ndarray, "k 2"]
    target_points: Float64[np.ndarray, "k 2"]
    scale: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spair(Layout):
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

    def find(self) -> Sequence[_Item]:
        root = self.folder("JPEGImages").parent
        seen = {
            (pair["category"], name)
            for pair in self._annotated
            for name in (pair["src_imname"], pair["trg_imname"])
        }
        return [
            _Item(
                root / "JPEGImages" / category / name,
                (root / "ImageAnnotation" / category / name).with_suffix(".json"),
            )
            for category, name in sorted(seen)
        ]

    def categories(self) -> list[str]:
        """The classes that pairs are of."""
        return sorted({pair["category"] for pair in self._annotated})

    def image(self, index: int) -> UInt8[np.ndarray, "s s 3"]:
        """Padded to a square."""
        image = super().image(index)
        height, width = image.shape[:2]
        side = max(height, width)
        return np.pad(image, ((0, side - height), (0, side - width), (0, 0)), constant_values=255)

    def pairs(self, *, view: int | None, count: int, size: int) -> list[Pair]:
        """Pairs of this category.

        Args:
            view: difference of viewpoint; None for any.
            count: most pairs.
            size: side of the square in pixels; keypoints lie on its whole pixels.
        """
        wanted = [p for p in self._annotated if view is None or p["viewpoint_variation"] == view]
        random.Random(20).shuffle(wanted)
        rows = {item.path.name: row for row, item in enumerate(self.items)}
        return [self._pair(pair, rows, size) for pair in wanted[:count]]

    def _pair(self, pair: dict[str, Any], rows: dict[str, int], size: int) -> Pair:
        source, target = rows[pair["src_imname"]], rows[pair["trg_imname"]]
        points, shown = zip(
            self._keypoints(source, max(pair["src_imsize"][:2]), size),
            self._keypoints(target, max(pair["trg_imsize"][:2]), size),
            strict=True,
        )
        both = shown[0] & shown[1]
        left, top, right, bottom = pair["trg_bndbox"]
        return Pair(
            source=source,
            target=target,
            view=pair["viewpoint_variation"],
            source_points=points[0][both],
            target_points=points[1][both],
            scale=max(right - left, bottom - top) / max(pair["trg_imsize"][:2]),
        )

    def _keypoints(
        self, row: int, side: int, size: int
    ) -> tuple[Float64[np.ndarray, "k 2"], Bool[np.ndarray, " k"]]:
        """Places of an image's keypoints, and which of them are shown."""
        known = _annotation(self.items[row].annotation)["kps"]
        places = [known[str(k)] for k in range(len(known))]
        shown = np.asarray([place is not None for place in places])
        pixels = np.asarray([place or (0, 0) for place in places]).astype(np.int64)
        return np.trunc(pixels * size / side) / size, shown

    @property
    def _annotated(self) -> list[dict[str, Any]]:
        pairs = _pairs(self.folder(f"PairAnnotation/{_SPLITS[self.split]}"))
        return [p for p in pairs if self.category in ("", p["category"])]


@functools.lru_cache(maxsize=2)
def _pairs(folder: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


@functools.lru_cache(maxsize=4096)
def _annotation(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text())
