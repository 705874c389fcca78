# SPDX-License-Identifier: Apache-2.0
"""Geometric correspondence of two views, as Probe3D (arXiv 2404.08636) measures it on NAVI.

Patch features of both views, resized bicubically to a grid of points, are matched by cosine; the
matches of the best ratio between nearest and second nearest count. A match is right when its two
points are near each other in the second camera's frame. The number is the mean over ranges of the
angle between the views (MTV section 10), of features of the last block before the final norm, as in
Probe3D's wrapper of SigLIP; with the norm beside it. The chance level is the expectation when the
same first points are matched to points of the second view drawn at random; `same_place` is what a
match of every point to the same place of the other view would give, without a look at either.
"""

import dataclasses
import itertools
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from input_pipeline.eval_pairs import TwoViews, ViewPair
from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError
from mtv_jax.dist.nearest import nearest
from mtv_jax.evaluators.base import EvalContext, EvalModel, Evaluator
from mtv_jax.evaluators.base_correspondence import READ, WANTS, unit

_CUBIC = -0.75  # PyTorch's
_BLOCK = 256  # points whose distances to all others are in memory


class Matches(NamedTuple):
    """Indices of points that belong together."""

    first: Int[np.ndarray, " k"]
    second: Int[np.ndarray, " k"]


class Hits(NamedTuple):
    """Of each match, for every threshold: whether it is right; and with what chance."""

    right: Bool[np.ndarray, "k t"]
    chance: Float[np.ndarray, "k t"]


class Places(NamedTuple):
    """Where the points of both views are in the second one: x, y, z in metres; x, y in pixels.

    What is not known of a view is nowhere: NaN.
    """

    first: Float[np.ndarray, "n 5"]
    second: Float[np.ndarray, "n 5"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoViewRecall(Evaluator):
    """Recall of matches by distance, and by the angle between the views.

    Attributes:
        data: the views.
        size: side in pixels of the squares that are embedded.
        side: points of a view along each side.
        matches: counted, of a pair.
        batch_size: images at a time.
        centimetres: distances in space up to which a match is right.
        pixels: the same for distances in the second view, of `size`.
        headline: the one of `centimetres` that counts in `recall`.
        degrees: bounds of the ranges of angles.
    """

    data: TwoViews
    size: int = at_least(1, 512)
    side: int = at_least(2, 128)
    matches: int = at_least(1, 1000)
    batch_size: int = at_least(1, 8)
    centimetres: tuple[int, ...] = (1, 2, 5)
    pixels: tuple[int, ...] = (5, 25, 50)
    headline: int = 2
    degrees: tuple[int, ...] = (0, 30, 60, 90, 120)

    def check(self, columns: Collection[str]) -> None:
        super().check(columns)
        if self.headline not in self.centimetres:
            raise UserError(
                f"evals.{self.name}.headline = {self.headline} should be one of its centimetres "
                f"{self.centimetres}"
            )

    def unavailable(self, model: EvalModel) -> str:
        side = model.encoder.patch_size
        return f"patches of {side} do not divide {self.size} pixels" if self.size % side else ""

    def run(self, ctx: EvalContext) -> dict[str, float]:
        hits: dict[str, list[Hits]] = {prefix: [] for prefix in READ}
        unseen: list[np.ndarray] = []
        degrees: list[float] = []
        for data in self.data.parts():
            pairs = data.pairs()
            grids = self._grids(ctx, data) if pairs else {}
            for pair in pairs:
                places = self.places(data, pair)
                unseen.append(self._right(*places)[_known(places.first)])
                degrees.append(pair.degrees)
                for prefix, images in grids.items():
                    grid = images[pair.first], images[pair.second]
                    hits[prefix].append(self.hits(ctx.mesh, places, grid))
        blind = self._recalls(unseen, degrees)["recall"]
        numbers = {"pairs": float(len(degrees)), "same_place": blind}
        for prefix, found in hits.items():
            right = self._recalls([hit.right for hit in found], degrees)
            chance = self._recalls([hit.chance for hit in found], degrees)
            numbers |= {f"{prefix}{name}": value for name, value in right.items()}
            numbers |= {f"{prefix}{name}/chance": value for name, value in chance.items()}
        return numbers

    def _grids(self, ctx: EvalContext, data: TwoViews) -> dict[str, list[np.ndarray]]:
        """Tokens of every view, [n, d]."""
        grids: dict[str, list[np.ndarray]] = {prefix: [] for prefix in READ}
        for features in ctx.batches(data, WANTS, size=self.size, batch_size=self.batch_size):
            for prefix, read in READ.items():
                grids[prefix] += [np.asarray(tokens, np.float32) for tokens in read(features)]
        return grids

    def places(self, data: TwoViews, pair: ViewPair) -> Places:
        """The points of a pair's views, `side` x `side` of each."""
        views = [data.points(row, self.side).reshape(-1, 3) for row in (pair.first, pair.second)]
        first, second = (np.where(p[:, 2:] > 0, p.astype(np.float64), np.nan) for p in views)
        motion = data.pose(pair.second) @ np.linalg.inv(data.pose(pair.first))
        moved = first @ motion[:3, :3].T + motion[:3, 3]
        focal = data.focal(pair.second, self.size)
        return Places(
            np.hstack([moved, projected(moved, focal)]),
            np.hstack([second, projected(second, focal)]),
        )

    def hits(self, mesh: Mesh, places: Places, tokens: Sequence[np.ndarray]) -> Hits:
        """Of a pair's matches, by the tokens [n, d] of its views."""
        known = [_known(p) for p in places]
        first, second = (self._features(t, k) for t, k in zip(tokens, known, strict=True))
        matches = matched(mesh, first, second, self.matches)
        wanted, there = places.first[known[0]][matches.first], places.second[known[1]]
        return Hits(self._right(wanted, there[matches.second]), self._chance(wanted, there))

    def _features(self, tokens: np.ndarray, known: np.ndarray) -> Float[np.ndarray, "n d"]:
        side = math.isqrt(len(tokens))
        return resized(tokens.reshape(side, side, -1), self.side).reshape(len(known), -1)[known]

    def _right(
        self, wanted: Float[np.ndarray, "k 5"], found: Float[np.ndarray, "k 5"]
    ) -> Bool[np.ndarray, "k t"]:
        """Whether each place found is near the one wanted; never when it is nowhere."""
        shift = wanted - found
        in_space, in_view = _length(shift[:, :3]), _length(shift[:, 3:])
        return np.hstack([in_space < self._metres, in_view < np.asarray(self.pixels)])

    def _chance(
        self, wanted: Float[np.ndarray, "k 5"], there: Float[np.ndarray, "n 5"]
    ) -> Float[np.ndarray, "k t"]:
        """Which share of all places is near each one wanted."""
        in_space = near_shares(wanted[:, :3], there[:, :3], self._metres)
        return np.hstack([in_space, near_shares(wanted[:, 3:], there[:, 3:], self.pixels)])

    @property
    def _metres(self) -> Float[np.ndarray, " t"]:
        return np.asarray(self.centimetres) / 100

    def _recalls(self, hits: list[np.ndarray], degrees: list[float]) -> dict[str, float]:
        """Of all matches by threshold; and of pairs, by angle, at the headline's."""
        names = [*(f"{cm}cm" for cm in self.centimetres), *(f"{px}px" for px in self.pixels)]
        every = np.concatenate([*hits, np.zeros((0, len(names)))])
        numbers = {name: _mean(every[:, column]) for column, name in enumerate(names)}
        headline = self.centimetres.index(self.headline)
        by_pair = np.asarray([_mean(pair[:, headline]) for pair in hits])
        angles = np.asarray(degrees)
        ranges = {
            f"{low}_{high}": _mean(by_pair[(angles >= low) & (angles < high)])
            for low, high in itertools.pairwise(self.degrees)
        }
        return {**numbers, **ranges, "recall": _mean(np.asarray([*ranges.values()]))}


def near_shares(
    wanted: Float[np.ndarray, "k c"],
    there: Float[np.ndarray, "n c"],
    thresholds: Sequence[float] | np.ndarray,
) -> Float[np.ndarray, "k t"]:
    """Which share of all places lies within each threshold of each one wanted."""
    shares = np.zeros((len(wanted), len(thresholds)))
    squares = (there**2).sum(axis=-1)
    for start in range(0, len(wanted), _BLOCK):
        block = wanted[start : start + _BLOCK]
        distances = (block**2).sum(axis=-1)[:, None] + squares - 2 * block @ there.T
        for column, threshold in enumerate(thresholds):
            near = (distances < threshold**2).mean(axis=1)
            shares[start : start + _BLOCK, column] = near
    return shares


def matched(
    mesh: Mesh, first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m d"], count: int
) -> Matches:
    """The matches whose nearest neighbour is the most distinct from the second nearest."""
    first, second = unit(first), unit(second)
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
    return weights @ np.tensordot(weights, grid, axes=1)  # rows, then columns


def projected(
    points: Float[np.ndarray, "k 3"], focal: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "k 2"]:
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


def _known(places: Float[np.ndarray, "n 5"]) -> Bool[np.ndarray, " n"]:
    return ~np.isnan(places[:, 0])


def _length(x: Float[np.ndarray, "k c"]) -> Float[np.ndarray, "k 1"]:
    return np.linalg.norm(x, axis=-1, keepdims=True)


def _mean(values: np.ndarray) -> float:
    """Over those that are numbers: a pair may have no match, and a range no pair."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
