# SPDX-License-Identifier: Apache-2.0
"""Semantic correspondence of keypoints, as Probe3D (arXiv 2404.08636) measures it on SPair-71k.

The feature at a keypoint of one image (bilinear, of unit patch features) is compared with every
patch of the other; the best patch is the prediction, and right when it lies within `threshold`
times the longer side of the object's box. Recall is over the keypoints that both images show, then
averaged over classes. Features are those of the last block before the final norm, as in Probe3D's
wrapper of SigLIP; with the norm beside it (MTV section 10). The chance level is that of a patch
drawn at random; `same_place_…` predicts the same place of the padded square for every keypoint,
without a look at either image.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Int64

from input_pipeline.eval_pairs import KeypointPair, KeypointPairs
from mtv_jax.core.config import at_least
from mtv_jax.evaluators.base import EvalContext, EvalModel, Evaluator
from mtv_jax.evaluators.base_correspondence import READ, WANTS, unit

Grid = Float[np.ndarray, "h w d"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeypointRecall(Evaluator):
    """Recall of each kind of pairs that the data knows.

    Attributes:
        data: the pairs.
        size: side in pixels of the squares that are embedded.
        count: most pairs of a class and a kind.
        threshold: of the longer side of the target's box.
        batch_size: images at a time.
    """

    data: KeypointPairs
    size: int = at_least(1, 800)
    count: int = at_least(1, 200)
    threshold: float = 0.1
    batch_size: int = at_least(1, 8)

    def unavailable(self, model: EvalModel) -> str:
        side = model.encoder.patch_size
        return f"patches of {side} do not divide {self.size} pixels" if self.size % side else ""

    def run(self, ctx: EvalContext) -> dict[str, float]:
        hits: dict[str, list[float]] = {}
        for category in self.data.categories():
            for name, recall in self._category(ctx, category).items():
                hits.setdefault(name, []).append(recall)
        numbers = {name: _over_classes(recalls) for name, recalls in hits.items()}
        return numbers | {"classes": float(len(self.data.categories()))}

    def _category(self, ctx: EvalContext, category: str) -> dict[str, float]:
        """Recalls of one class; NaN where it has no pair."""
        data = self.data.only(category)
        grids: dict[str, list[Grid]] = {prefix: [] for prefix in READ}
        for features in ctx.batches(data, WANTS, size=self.size, batch_size=self.batch_size):
            for prefix, read in READ.items():
                grids[prefix] += map(unit_grid, read(features))
        recalls: dict[str, float] = {}
        for view in data.views():
            pairs = data.pairs(view, count=self.count, size=self.size)
            for prefix, images in grids.items():
                found = [self.hits(images[p.source], images[p.target], p) for p in pairs]
                recalls[f"{prefix}{view}"] = _mean([hit for hit, _ in found])
                recalls[f"{prefix}{view}/chance"] = _mean([chance for _, chance in found])
            recalls[f"same_place_{view}"] = _mean([_moves(p) < self.threshold for p in pairs])
        return recalls

    def hits(
        self, source: Grid, target: Grid, pair: KeypointPair
    ) -> tuple[Bool[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """Which keypoints are found; and what share of all patches would have been right."""
        best = best_patches(source, target, pair.source_points)
        right = patch_errors(len(target), pair) < self.threshold
        return right[best, np.arange(len(best))], right.mean(axis=0)


def best_patches(
    source: Grid, target: Grid, points: Float[np.ndarray, "k 2"]
) -> Int64[np.ndarray, " k"]:
    """The patch of the target that is most like the source at each point."""
    queries = sampled(source, points)
    return (queries @ target.reshape(-1, target.shape[-1]).T).argmax(axis=1)


def patch_errors(side: int, pair: KeypointPair) -> Float[np.ndarray, "n k"]:
    """Distance of every patch from every keypoint of the target, over the box's longer side.

    A patch is at its upper left corner, as Probe3D has it.
    """
    rows, columns = np.divmod(np.arange(side * side), side)
    places = np.stack([columns, rows], axis=1) / side
    return np.linalg.norm(places[:, None] - pair.target_points, axis=-1) / pair.scale


def _moves(pair: KeypointPair) -> Float[np.ndarray, " k"]:
    """How far each keypoint is from its place in the source, over the box's longer side."""
    return np.linalg.norm(pair.target_points - pair.source_points, axis=-1) / pair.scale


def unit_grid(tokens: Float[np.ndarray, "n d"]) -> Grid:
    """Tokens of a square image as a grid of unit vectors, float32."""
    side = math.isqrt(len(tokens))
    return unit(tokens.astype(np.float32)).reshape(side, side, -1)


def sampled(grid: Grid, points: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "k d"]:
    """Bilinear, with (0, 0) and (1, 1) at the centres of the corner patches; (x, y) points."""
    height, width = grid.shape[:2]
    places = points * (np.asarray([width, height]) - 1)
    low = np.clip(np.floor(places).astype(np.int64), 0, [width - 1, height - 1])
    high = np.minimum(low + 1, [width - 1, height - 1])
    x, y = np.moveaxis((places - low)[..., None], 1, 0)
    top = grid[low[:, 1], low[:, 0]] * (1 - x) + grid[low[:, 1], high[:, 0]] * x
    bottom = grid[high[:, 1], low[:, 0]] * (1 - x) + grid[high[:, 1], high[:, 0]] * x
    return top * (1 - y) + bottom * y


def _over_classes(recalls: list[float]) -> float:
    """The mean over those that have a number."""
    known = [recall for recall in recalls if not math.isnan(recall)]
    return sum(known) / len(known) if known else math.nan


def _mean(parts: list[np.ndarray]) -> float:
    """Over all keypoints of all pairs."""
    values = np.concatenate(parts) if parts else np.zeros(0)
    return float(values.mean()) if len(values) else float("nan")
