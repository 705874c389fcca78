# SPDX-License-Identifier: Apache-2.0
"""The known mistakes with labels, each as the reading of wrong labels that puts them right."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Moves = Callable[[np.ndarray], np.ndarray]  # sizes [n, 2] (height, width) -> affine [n, 2, 3]
_CROP = 224 / 256


class Reading(NamedTuple):
    """Labels read another way.

    Attributes:
        mistake: what was done if this way is right, after the name of the labels: the kind of
            the fault; "" for a change that is no mistake, such as boxes drawn loosely.
        remedy: likely cause, and what to do.
        moves: where the points of the unit square go; None if the reading is not a move.
        boxes: boxes from boxes [k, 4], for readings of boxes alone.
        neighbour: of which row the picture is, counted from that of the labels.
        amount: of the mistake, in words.
    """

    mistake: str = ""
    remedy: str = ""
    moves: Moves | None = None
    boxes: Callable[[np.ndarray], np.ndarray] | None = None
    neighbour: int = 0
    amount: str = ""


def _fixed(*rows: tuple[float, float, float]) -> Moves:
    return lambda sizes: np.broadcast_to(np.array(rows, np.float64), (len(sizes), 2, 3))


def _axes(scale: Callable[[np.ndarray], np.ndarray]) -> Moves:
    """Scaled about the middle or the corner; `scale` gives [n, 2, 2]: factor and shift of x, y."""

    def moves(sizes: np.ndarray) -> np.ndarray:
        factors = scale(sizes.astype(np.float64))
        result = np.zeros((len(sizes), 2, 3))
        result[:, 0, 0], result[:, 1, 1] = factors[:, 0].T
        result[:, :, 2] = factors[:, 1]
        return result

    return moves


def _padded(sizes: np.ndarray) -> np.ndarray:
    """From shares of the square that the picture was padded to, below or at the right."""
    factors = sizes.max(1, keepdims=True) / sizes[:, ::-1]
    return np.stack([factors, np.zeros_like(factors)], 1)


def _padded_twice(sizes: np.ndarray) -> np.ndarray:
    factors = sizes[:, ::-1] / sizes.max(1, keepdims=True)
    return np.stack([factors, np.zeros_like(factors)], 1)


def _cropped(sizes: np.ndarray) -> np.ndarray:
    """From shares of the square in the middle of the picture."""
    factors = sizes.min(1, keepdims=True) / sizes[:, ::-1]
    return np.stack([factors, (1 - factors) / 2], 1)


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.clip(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1), 0, 1)


def _centred(boxes: np.ndarray) -> np.ndarray:
    half = boxes[:, 2:] / 2
    return np.clip(np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1), 0, 1)


def _resized(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    def boxes_of(boxes: np.ndarray) -> np.ndarray:
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        return np.clip(np.concatenate([middle - factor * half, middle + factor * half], 1), 0, 1)

    return boxes_of


_EXIF = "the EXIF orientation was not applied: label the images of the store, which are upright"
_MIRROR = "the image was mirrored when it was labelled (a flip for augmentation?): switch that off"
_BELOW = "y was counted from below: write 1 - y, and swap y1 and y2"
_SWAP = "write x before y: x1, y1, x2, y2"
_CORNERS = "write corners: x, y, x + width, y + height"
_CENTRE = "write corners: the centre less, and plus, half the size"
_CROPPED = "the image was cropped to a square when it was labelled: label the whole of it"
_PADDED = "multiply them by max(height, width) / height and / width"
_TWICE = "a correction for padding was applied to labels that need none, or twice: leave it out"
_DRIFT = "compare the size, crop and padding of the images that were labelled with the store's"
_ROWS = "keys and labels were joined with an offset: label the store again, or join by key"

STILL = Reading(moves=_fixed((1, 0, 0), (0, 1, 0)))

# What a sound detector may do too: a mistake must fit better than these.
HABITS = tuple(Reading(boxes=_resized(factor)) for factor in (0.8, 0.9, 1.1, 1.25))

MISTAKES = (
    Reading("turned by 180 degrees", _EXIF, _fixed((-1, 0, 1), (0, -1, 1))),
    Reading("turned by a quarter", _EXIF, _fixed((0, 1, 0), (-1, 0, 1))),
    Reading("turned by a quarter", _EXIF, _fixed((0, -1, 1), (1, 0, 0))),
    Reading("mirrored", _MIRROR, _fixed((-1, 0, 1), (0, 1, 0))),
    Reading("upside down", _BELOW, _fixed((1, 0, 0), (0, -1, 1))),
    Reading("with x and y swapped", _SWAP, _fixed((0, 1, 0), (1, 0, 0))),
    Reading("as shares of the padded square", _PADDED, _axes(_padded)),
    Reading("corrected for padding once too often", _TWICE, _axes(_padded_twice)),
    Reading("as shares of the square in the middle", _CROPPED, _axes(_cropped)),
    *(
        Reading("shifted", _DRIFT, _fixed((1, 0, -dx), (0, 1, -dy)), amount=f" by {dx:g}, {dy:g}")
        for size in (0.03, 0.06)
        for dx, dy in ((size, 0), (-size, 0), (0, size), (0, -size))
    ),
    *(
        Reading("scaled", _DRIFT, _fixed((1 / f, 0, 0), (0, 1 / f, 0)), amount=f" by {f:g}")
        for f in (0.8, 0.9, 0.95, 1.05, 1.1, 1.25)
    ),
    *(
        Reading(
            "scaled",
            _DRIFT,
            _fixed((f, 0, (1 - f) / 2), (0, f, (1 - f) / 2)),
            amount=f" by {1 / f:.3g} about the middle",
        )
        for f in (_CROP, 1 / _CROP)
    ),
    Reading("as x, y, width, height", _CORNERS, boxes=_corners),
    Reading("as centre and size", _CENTRE, boxes=_centred),
    *(
        Reading("of another row", _ROWS, STILL.moves, neighbour=rows, amount=f" ({rows:+d})")
        for rows in (1, -1)
    ),
)
