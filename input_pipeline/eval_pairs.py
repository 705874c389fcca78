# SPDX-License-Identifier: Apache-2.0
"""The contracts of data that correspondence is measured on: images in pairs, and what belongs.

`TwoViews` knows where every point of a view lies in space, `KeypointPairs` which places of two
images bear one name.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from input_pipeline.eval_data import EvalData

_WHITE = 255


class ViewPair(NamedTuple):
    """Rows of two views of a scene, and the angle of the rotation between them in degrees."""

    first: int
    second: int
    degrees: float


class TwoViews(EvalData):
    """Views with depth and pose, in pairs that show the same things.

    A view may be squashed to a square of any size. Camera frames have x to the right, y down and z
    forward, in metres.
    """

    @abc.abstractmethod
    def parts(self) -> Sequence[Self]:
        """The set cut into pieces whose features fit into memory; no pair is cut."""

    @abc.abstractmethod
    def pairs(self) -> list[ViewPair]:
        """The pairs, the same in every run."""

    @abc.abstractmethod
    def points(self, index: int, side: int) -> Float32[np.ndarray, "side side 3"]:
        """What `side` x `side` places of a view show, in the camera's frame; z = 0: not counted."""

    @abc.abstractmethod
    def focal(self, index: int, size: int) -> Float64[np.ndarray, "2"]:
        """Focal lengths along x and y in pixels of the view, squashed to a square of `size`."""

    @abc.abstractmethod
    def pose(self, index: int) -> Float64[np.ndarray, "4 4"]:
        """To the camera's frame, from one that both views of a pair share."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class KeypointPair:
    """Two images and the places of their keypoints, in [0, 1] of the padded squares.

    Attributes:
        source: row of the image whose keypoints are looked for.
        target: row of the image in which they are.
        source_points: (x, y).
        target_points: the same keypoints in the other image.
        scale: the longer side of the box around the target's object as a share of the square.
    """

    source: int
    target: int
    source_points: Float64[np.ndarray, "k 2"]
    target_points: Float64[np.ndarray, "k 2"]
    scale: float


class KeypointPairs(EvalData):
    """Images of objects with named keypoints, in pairs of one class; padded to squares."""

    @abc.abstractmethod
    def categories(self) -> list[str]:
        """The classes that pairs are of."""

    @abc.abstractmethod
    def only(self, category: str) -> Self:
        """The images of one class, in whose rows its pairs are given."""

    @abc.abstractmethod
    def views(self) -> Sequence[str]:
        """Names of the kinds of pairs, by how much the viewpoints differ."""

    @abc.abstractmethod
    def pairs(self, view: str, *, count: int, size: int) -> list[KeypointPair]:
        """Pairs of one class, the same in every run.

        Args:
            view: one of `views`.
            count: most pairs.
            size: side in pixels at which the squares are read, for sets that round to its pixels.
        """


def relative_degrees(rotations: Float64[np.ndarray, "n 3 3"]) -> Float64[np.ndarray, "n n"]:
    """Angles between rotations; 0 with itself."""
    traces = np.einsum("iab,jab->ij", rotations, rotations)
    angles = np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))
    np.fill_diagonal(angles, 0.0)
    return angles


def padded(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
    """An image as a square, white below or at the right."""
    height, width = image.shape[:2]
    side = max(height, width)
    return np.pad(image, ((0, side - height), (0, side - width), (0, 0)), constant_values=_WHITE)
