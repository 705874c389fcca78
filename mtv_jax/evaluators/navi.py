# SPDX-License-Identifier: Apache-2.0
"""Geometric correspondence on NAVI, as Probe3D (arXiv 2404.08636) measures it.

Patch features of two views of an object, resized bicubically to 128 × 128, are matched by cosine;
the 1,000 matches of the best ratio between nearest and second nearest count. A match is right when
its two points are less than 2 cm apart in the second camera's frame. The number is the mean over
four ranges of the angle between the views (MTV section 10), of features of the last block before
the final norm, as in Probe3D's wrapper of SigLIP; with the norm beside it.
"""

import dataclasses
import itertools
import math
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from input_pipeline.layouts.navi import SIZE, Navi
from mtv_jax.core.config import at_least
from mtv_jax.dist.nearest import nearest
from mtv_jax.evaluators.base import EvalContext, EvalModel, Evaluator
from mtv_jax.evaluators.base_correspondence import READ, WANTS

_BINS = (0, 30, 60, 90, 120)  # degrees
_CENTIMETRES = (1, 2, 5)
_PIXELS = (5, 25, 50)
_HEADLINE = 2  # centimetres
_CUBIC = -0.75  # PyTorch's


class Matches(NamedTuple):
    """Indices of points that belong together."""

    first: Int[np.ndarray, " k"]
    second: Int[np.ndarray, " k"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NaviRecall(Evaluator):
    """Recall of matches by distance, and by the angle between the views.

    Attributes:
        data: the views.
        side: points of a view along each side.
        matches: counted, of a pair.
        batch_size: images at a time.
    """

    data: Navi
    side: int = at_least(2, 128)
    matches: int = at_least(1, 1000)
    batch_size: int = at_least(1, 8)

    def unavailable(self, model: EvalModel) -> str:
        side = model.encoder.patch_size
        return f"patches of {side} do not divide {SIZE} pixels" if SIZE % side else ""

    def run(self, ctx: EvalContext) -> dict[str, float]:
        errors: dict[str, list[np.ndarray]] = {prefix: [] for prefix in READ}
        degrees: list[float] = []
        for thing in self.data.things():
            data = dataclasses.replace(self.data, thing=thing)
            pairs = data.pairs()
            degrees += [pair.degrees for pair in pairs]
            grids = self._grids(ctx, data) if pairs else {}
            for prefix, images in grids.items():
                for first, second, _ in pairs:
                    found = self.errors(ctx.mesh, data, images, first, second)
                    errors[prefix].append(found)
        numbers: dict[str, float] = {"pairs": float(len(degrees))}
        for prefix, found in errors.items():
            numbers |= _recalls(prefix, found, np.asarray(degrees))
        return numbers

    def _grids(self, ctx: EvalContext, data: Navi) -> dict[str, list[np.ndarray]]:
        """Unit features of every point of every view, [side, side, d]."""
        grids: dict[str, list[np.ndarray]] = {prefix: [] for prefix in READ}
        for features in ctx.batches(data, WANTS, size=SIZE, batch_size=self.batch_size):
            for prefix, read in READ.items():
                grids[prefix] += [np.asarray(tokens, np.float32) for tokens in read(features)]
        return grids

    def errors(
        self, mesh: Mesh, data: Navi, tokens: list[np.ndarray], first: int, second: int
    ) -> Float[np.ndarray, "k 2"]:
        """Of each match: metres in space, pixels of the second view."""
        views = [self._points(data, tokens, row) for row in (first, second)]
        matches = matched(mesh, views[0].features, views[1].features, self.matches)
        motion = data.pose(second) @ np.linalg.inv(data.pose(first))
        moved = views[0].points[matches.first] @ motion[:3, :3].T + motion[:3, 3]
        there = views[1].points[matches.second]
        shift = projected(moved, data.focal(second)) - projected(there, data.focal(second))
        return np.stack([_length(moved - there), _length(shift)], axis=-1)

    def _points(self, data: Navi, tokens: list[np.ndarray], row: int) -> "_Points":
        points = data.points(row, self.side).reshape(-1, 3)
        side = math.isqrt(len(tokens[row]))
        grid = tokens[row].reshape(side, side, -1)
        features = resized(grid, self.side).reshape(len(points), -1)
        known = points[:, 2] > 0
        return _Points(points[known].astype(np.float64), features[known])


class _Points(NamedTuple):
    points: Float[np.ndarray, "n 3"]
    features: Float[np.ndarray, "n d"]


def matched(
    mesh: Mesh, first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m d"], count: int
) -> Matches:
    """The matches whose nearest neighbour is the most distinct from the second nearest."""
    first, second = _unit(first), _unit(second)
    if len(first) == 0 or len(second) < 2:
        return Matches(np.zeros(0, np.int64), np.zeros(0, np.int64))
    found = nearest(mesh, first, second, 2)
    distances = np.maximum(1 - found.scores.astype(np.float64), 1e-9)
    weights = 1 - distances[:, 0] / distances[:, 1]
    best = np.argsort(-weights, kind="stable")[:count]
    return Matches(best, found.rows[best, 0])


def resized(grid: Float[np.ndarray, "h h d"], side: int) -> Float[np.ndarray, "side side d"]:
    """Bicubic without antialiasing, pixel centres aligned, as PyTorch interpolates."""
    weights = _cubic_weights(len(grid), side).astype(np.float32)
    return np.einsum("Hh,Ww,hwd->HWd", weights, weights, grid, optimize=True)


def projected(points: Float[np.ndarray, "k 3"], focal: float) -> Float[np.ndarray, "k 2"]:
    """Pixels about the camera's axis."""
    return focal * points[:, :2] / np.maximum(points[:, 2:], 1e-9)


def _cubic_weights(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Keys' cubic of four taps; beyond the border the border counts."""
    places = (np.arange(new) + 0.5) * old / new - 0.5
    low = np.floor(places).astype(np.int64)
    weights = np.zeros((new, old))
    for tap in (-1, 0, 1, 2):
        distance = np.abs(places - (low + tap))
        near = (_CUBIC + 2) * distance**3 - (_CUBIC + 3) * distance**2 + 1
        far = _CUBIC * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        taps = np.clip(low + tap, 0, old - 1)
        np.add.at(weights, (np.arange(new), taps), np.where(distance <= 1, near, far))
    return weights


def _recalls(
    prefix: str, errors: list[np.ndarray], degrees: Float[np.ndarray, " p"]
) -> dict[str, float]:
    """Of all matches by distance; and of pairs, by angle, at the headline's distance."""
    metres, pixels = np.concatenate([*errors, np.zeros((0, 2))]).T
    numbers = {f"{prefix}{cm}cm": _share(metres, cm / 100) for cm in _CENTIMETRES}
    numbers |= {f"{prefix}{px}px": _share(pixels, px) for px in _PIXELS}
    by_pair = np.asarray([_share(found[:, 0], _HEADLINE / 100) for found in errors])
    ranges = []
    for low, high in itertools.pairwise(_BINS):
        inside = by_pair[(degrees >= low) & (degrees < high)]
        numbers[f"{prefix}{low}_{high}"] = float(inside.mean()) if len(inside) else math.nan
        ranges.append(numbers[f"{prefix}{low}_{high}"])
    known = [value for value in ranges if not math.isnan(value)]
    numbers[f"{prefix}recall"] = sum(known) / len(known) if known else math.nan
    return numbers


def _share(errors: np.ndarray, threshold: float) -> float:
    return float((errors < threshold).mean()) if len(errors) else math.nan


def _length(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x, axis=-1)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
