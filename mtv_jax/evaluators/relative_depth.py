# SPDX-License-Identifier: Apache-2.0
"""Relative depth: AbsRel of disparity maps after the best affine fit to each image's truth.

For predicted disparity d and true inverse depth y = 1 / g of an image, over its valid pixels:

    a, b = argmin Σ (a d + b - y)²,      AbsRel = mean |a d + b - y| / y

in disparity space, as the authors of Depth Anything compute it (MTV table 6). The scale of g does
not matter. The chance level is that of one map for all images, the mean over a training set.
"""

import abc
import dataclasses
from collections.abc import Collection, Iterable, Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float

from input_pipeline.decode import resize_map
from input_pipeline.eval_set import EvalSet
from mtv_jax.core.config import at_least
from mtv_jax.core.passes import Wants, wanted
from mtv_jax.evaluators.base import EvalContext, EvalModel, Evaluator

Map = Float[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelativeDepth(Evaluator):
    """What both evaluators share: the truth, its prior, and the score.

    Attributes:
        truth: column of the true map, 0 where it is unknown; an image without one is left out.
        truth_is: "depth" (any unit) or "disparity".
        train: images with the column `label`; their mean map is the chance level.
        label: column of disparities in `train`.
    """

    truth: str = "metric_depth"
    truth_is: Literal["depth", "disparity"] = "depth"
    train: EvalSet
    label: str = "depth"

    def check(self, columns: Collection[str]) -> None:
        super().check(columns)
        self.data.require(self.truth)
        self.train.open()
        self.train.require(self.label)

    def run(self, ctx: EvalContext) -> dict[str, float]:
        errors = self.errors(self.predictions(ctx))
        prior = self.mean_map(ctx.model.encoder.image_size)
        blind = self.errors([prior] * len(self.data))
        return {
            "absrel": float(np.nanmean(errors)),
            "absrel/chance": float(np.nanmean(blind)),
            "images": float(np.isfinite(blind).sum()),
        }

    @abc.abstractmethod
    def predictions(self, ctx: EvalContext) -> Iterable[Map]:
        """Predicted disparities, one map an image of `data`, of any size."""

    def errors(self, predictions: Iterable[Map]) -> Float[np.ndarray, " b"]:
        """AbsRel of every image; NaN for one without truth."""
        return np.asarray(
            [absrel(d, y) for d, y in zip(predictions, self.truths(), strict=True)], np.float64
        )

    def truths(self) -> Iterator[Map]:
        """True inverse depths, 0 where unknown."""
        for row in range(len(self.data)):
            raster = self.data.raster(row, self.truth).astype(np.float64)
            if self.truth_is == "depth":
                raster = np.divide(1.0, raster, out=np.zeros_like(raster), where=raster > 0)
            yield raster

    def mean_map(self, size: int) -> Map:
        """Mean disparity of every pixel over `train`, [size, size]."""
        total = np.zeros((size, size))
        for row in range(len(self.train)):
            total += resize_map(self.train.raster(row, self.label), (size, size))
        return total / len(self.train)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadDepth(RelativeDepth):
    """The map of an objective's own head, "zero-shot": nothing is fitted but scale and shift.

    Attributes:
        objective: name of the objective; it predicts a map "disparity".
    """

    objective: str = "depth"

    def unavailable(self, model: EvalModel) -> str:
        return model.lacks_maps(self.objective)

    def predictions(self, ctx: EvalContext) -> Iterable[Map]:
        return ctx.maps(self.data, self.objective)["disparity"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearDepth(RelativeDepth):
    """Ridge regression from frozen features of a patch to its disparity.

    Features of a patch are its final token and the image's pooled vector; what is regressed is the
    mean over the patch of the label, standardised per image. Closed form: nothing to tune or seed.

    Attributes:
        ridge: penalty, as a share of the features' mean square.
    """

    ridge: float = at_least(0.0, 1e-3)

    def predictions(self, ctx: EvalContext) -> Iterator[Map]:
        weights = self.fit(ctx)
        for features in _patch_features(ctx, self.data):
            grid = round(features.shape[1] ** 0.5)
            yield from (features @ weights).reshape(-1, grid, grid)

    def fit(self, ctx: EvalContext) -> Float[np.ndarray, " f"]:
        """Weights of the features, the last of which is 1."""
        row = 0
        width = 2 * ctx.model.encoder.embed_dim + 1
        gram, moment = np.zeros((width, width)), np.zeros(width)
        for features in _patch_features(ctx, self.train):
            grid = round(features.shape[1] ** 0.5)
            rows = range(row, row + len(features))
            labels = np.stack([self._patch_labels(index, grid) for index in rows])
            x = features.reshape(-1, width)
            gram += x.T @ x
            moment += x.T @ labels.reshape(-1)
            row += len(features)
        penalty = self.ridge * np.trace(gram) / width
        return np.linalg.solve(gram + penalty * np.eye(width), moment)

    def _patch_labels(self, row: int, grid: int) -> Float[np.ndarray, " n"]:
        patches = resize_map(self.train.raster(row, self.label), (grid, grid)).reshape(-1)
        return (patches - patches.mean()) / max(patches.std(), 1e-6)


def _patch_features(ctx: EvalContext, data: EvalSet) -> Iterator[Float[np.ndarray, "b n f"]]:
    """Patch tokens, pooled vector and 1, float32, a batch at a time."""
    for features in ctx.batches(data, Wants(tokens=True, pooled=True)):
        tokens, pooled = (wanted(f).astype(np.float32) for f in (features.tokens, features.pooled))
        shared = np.pad(pooled, ((0, 0), (0, 1)), constant_values=1.0)[:, None]
        repeated = np.broadcast_to(shared, (*tokens.shape[:2], shared.shape[-1]))
        yield np.concatenate([tokens, repeated], axis=-1)


def absrel(prediction: Map, truth: Map) -> float:
    """AbsRel after the affine fit; NaN without two known pixels.

    Args:
        prediction: disparity of any size; resized to the truth's.
        truth: inverse depth; 0 where it is unknown.
    """
    known = truth > 0
    if known.sum() < 2:
        return float("nan")
    d, y = aligned(resize_map(prediction, truth.shape)[known], truth[known]), truth[known]
    return float(np.mean(np.abs(d - y) / y))


def aligned(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """a x + b nearest to y by least squares; the mean of y when x is constant or not finite."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    centred = x - x.mean()
    variance = np.mean(centred**2)
    if not np.isfinite(variance) or variance <= 1e-20 * max(np.mean(x**2), 1e-300):
        return np.full_like(y, y.mean())
    return y.mean() + centred * (np.mean(centred * (y - y.mean())) / variance)
