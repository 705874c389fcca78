# SPDX-License-Identifier: Apache-2.0
"""How well boxes and rasters fit a picture, as numbers that average 0 for labels that know nothing.

A picture, and a raster over it, become maps of their edges on a square canvas. From the map of a
picture the mean over all pictures is taken away: what is left is its own, so that labels which
follow the habits of photographers (things in the middle, sky above) and not the picture score 0,
wherever they are moved. Evidence is linear in that map, hence exactly so on average.
"""

import cv2
import numpy as np
from jaxtyping import Float, Int, Shaped

SIDE = 64  # of the canvas, in pixels
_STRIP = 0.06  # of the canvas: how far inside and outside of a box its texture is compared
_BORDER = 0.01  # a side this near to the picture's has no outside
_EPSILON = 1e-3


def to_square(pixels: Shaped[np.ndarray, "h w *c"]) -> Float[np.ndarray, "side side *c"]:
    """Squashed to the canvas; area means where it shrinks."""
    shrinks = min(pixels.shape[:2]) >= SIDE
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(pixels.astype(np.float32), (SIDE, SIDE), interpolation=interpolation)


def edges_of_image(image: Shaped[np.ndarray, "h w 3"]) -> Float[np.ndarray, "side side"]:
    """Edges of an RGB image: mean 0, variance 1."""
    small = np.ascontiguousarray(to_square(image) / np.float32(255))
    return edges(cv2.cvtColor(small, cv2.COLOR_RGB2LAB))


def edges(canvas: Float[np.ndarray, "side side *c"]) -> Float[np.ndarray, "side side"]:
    """The root of the gradient, of the channel where it is largest; mean 0, variance 1."""
    steps = [np.abs(cv2.Sobel(canvas, cv2.CV_32F, dx, 1 - dx, ksize=3)) for dx in (0, 1)]
    strongest = np.max(steps, 0)
    return standardised(np.sqrt(strongest if strongest.ndim == 2 else strongest.max(2)))


def standardised(values: Float[np.ndarray, "side side"]) -> Float[np.ndarray, "side side"]:
    """Mean 0, variance 1; 0 everywhere for a constant."""
    centred = values - values.mean()
    deviation = centred.std()
    return centred / deviation if deviation > _EPSILON else np.zeros_like(centred)


def peculiar(
    maps: Float[np.ndarray, "n side side"], groups: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n side side"]:
    """Maps less the mean map of their group."""
    rest = maps.astype(np.float32)
    for group in np.unique(groups):
        rest[groups == group] -= rest[groups == group].mean(0)
    return rest


def integrals(
    maps: Float[np.ndarray, "n side side"],
) -> Float[np.ndarray, "n side+1 side+1"]:
    """Sums of the maps above and to the left."""
    sums = np.zeros((len(maps), SIDE + 1, SIDE + 1), np.float32)
    np.cumsum(maps, axis=1, out=sums[:, 1:, 1:])
    np.cumsum(sums[:, 1:, 1:], axis=2, out=sums[:, 1:, 1:])
    return sums


def box_evidence(
    sums: Float[np.ndarray, "n side+1 side+1"],
    rows: Int[np.ndarray, " k"],
    boxes: Float[np.ndarray, "k 4"],
) -> Float[np.ndarray, " k"]:
    """Texture just inside less texture just outside, mean over the sides of each box.

    Args:
        sums: `integrals` of the pictures.
        rows: of which picture each box is.
        boxes: xyxy in [0, 1].

    Returns:
        0 for an empty box; a side along the border of the picture counts 0.
    """
    left, top, right, bottom = boxes.T
    x, y, near = (left, right), (top, bottom), _STRIP
    total = np.zeros(len(boxes), np.float32)
    for side, sign in ((0, 1), (1, -1)):  # left and top, then right and bottom
        inner, outer = x[side] + sign * near, x[side] - sign * near
        total += _contrast(sums, rows, (inner, x[side], outer), y, upright=True)
        inner, outer = y[side] + sign * near, y[side] - sign * near
        total += _contrast(sums, rows, (inner, y[side], outer), x, upright=False)
    return np.where((right > left) & (bottom > top), total / 4, 0)


def _contrast(
    sums: np.ndarray,
    rows: np.ndarray,
    across: tuple[np.ndarray, np.ndarray, np.ndarray],
    along: tuple[np.ndarray, np.ndarray],
    *,
    upright: bool,
) -> np.ndarray:
    """Mean between `across` 0 and 1 less that between 1 and 2, over the length `along`."""
    means = []
    for first, second in (across[:2], across[1:]):
        low, high = np.minimum(first, second), np.maximum(first, second)
        corners = (low, along[0], high, along[1]) if upright else (along[0], low, along[1], high)
        means.append(box_means(sums, rows, np.stack(corners, 1)))
    inside = (across[1] > _BORDER) & (across[1] < 1 - _BORDER)
    return np.where(inside, means[0] - means[1], 0)


def box_means(sums: np.ndarray, rows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Mean of each box's part within its picture, xyxy in [0, 1]; 0 where there is none."""
    left, top, right, bottom = np.clip(boxes, 0, 1).T * SIDE
    area = (right - left) * (bottom - top)
    total = (
        _sum_to(sums, rows, bottom, right)
        - _sum_to(sums, rows, top, right)
        - _sum_to(sums, rows, bottom, left)
        + _sum_to(sums, rows, top, left)
    )
    return np.where(area > _EPSILON, total / np.maximum(area, _EPSILON), 0)


def _sum_to(sums: np.ndarray, rows: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    i, j = (np.minimum(at.astype(np.intp), SIDE - 1) for at in (y, x))
    down, right = y - i, x - j
    upper = sums[rows, i, j] * (1 - right) + sums[rows, i, j + 1] * right
    lower = sums[rows, i + 1, j] * (1 - right) + sums[rows, i + 1, j + 1] * right
    return upper * (1 - down) + lower * down


def nearness(
    sums: np.ndarray, rows: np.ndarray, boxes: np.ndarray, margin: float = 0.15
) -> np.ndarray:
    """How much larger the values of a map are inside of boxes than in a ring around: [k]."""
    sides = boxes[:, 2:] - boxes[:, :2]
    ring = np.clip(
        np.concatenate([boxes[:, :2] - margin * sides, boxes[:, 2:] + margin * sides], 1), 0, 1
    )
    areas = [np.prod(each[:, 2:] - each[:, :2], 1) for each in (boxes, ring)]
    inside, both = (box_means(sums, rows, each) for each in (boxes, ring))
    around = (both * areas[1] - inside * areas[0]) / np.maximum(areas[1] - areas[0], _EPSILON)
    return np.where(areas[1] - areas[0] > _EPSILON, inside - around, 0)


def raster_evidence(
    picture: Float[np.ndarray, "side side"],
    raster: Float[np.ndarray, "side side"],
    move: Float[np.ndarray, "2 3"],
) -> float:
    """Correlation of the edges of a picture with those of a raster after a move.

    Args:
        picture: peculiar edges.
        raster: edges of the raster.
        move: where a point of the raster goes, as an affine map of the unit square.
    """
    if not np.array_equal(move, np.eye(2, 3)):
        linear = move[:, :2]
        shift = linear.sum(1) / 2 + SIDE * move[:, 2] - 0.5  # of the centre of pixel 0
        raster = cv2.warpAffine(raster, np.column_stack([linear, shift]), (SIDE, SIDE))
    return float(np.vdot(picture, raster)) / SIDE**2


def moved(boxes: Float[np.ndarray, "k 4"], moves: Float[np.ndarray, "k 2 3"]) -> np.ndarray:
    """Boxes, xyxy in [0, 1], after affine moves that keep their sides upright; clipped."""
    corners = boxes.reshape(-1, 2, 2)
    ends = np.einsum("kij,kcj->kci", moves[:, :, :2], corners) + moves[:, None, :, 2]
    return np.clip(np.concatenate([ends.min(1), ends.max(1)], 1), 0, 1)
