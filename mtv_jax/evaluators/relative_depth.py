# SPDX-License-Identifier: Apache-2.0
"""Relative depth: AbsRel of disparity maps after the best affine fit to each image's truth.

For predicted disparity d and true inverse depth y = 1 / g of an image, over its valid pixels:

    a, b = argmin Σ (a d + b - y)²,      AbsRel = mean |a d + b - y| / y

in disparity space, as the authors of Depth Anything compute it (as in MTV table 6, without the
crops and ranges of its data sets). The scale of g does not matter. The chance level is that of one
map for all images, the mean over a training set.
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
from mtv_jax.core.errors import UserError
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
        for data, column in ((self.data, self.truth), (self.train, self.label)):
            if not any(data.raster(row, column).any() for row in range(len(data))):
                raise UserError(f"no row of {data} has a map in its column {column!r}")

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
        return map(self.true_map, range(len(self.data)))

    def true_map(self, row: int) -> Map:
        """Of one image."""
        raster = self.data.raster(row, self.truth).astype(np.float64)
        if self.truth_is == "depth":
            return np.divide(1.0, raster, out=np.zeros_like(raster), where=raster > 0)
        return raster

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
    mean over the patch of the label, standardised per image. Every position has its own intercept,
    so that without any use of the features the prediction is the mean map, the chance level. Closed
    form: nothing to tune or seed.

    Attributes:
        ridge: penalty, as a share of the features' mean variance.
    """

    ridge: float = at_least(0.0, 1e-3)

    def predictions(self, ctx: EvalContext) -> Iterator[Map]:
        fit = self.fit(ctx)
        for features in _patch_features(ctx, self.data):
            maps = (features - fit.mean_features) @ fit.weights + fit.mean_labels
            yield from maps.reshape(len(maps), *_square(maps.shape[1]))

    def fit(self, ctx: EvalContext) -> "_Fit":
        """The regression over those images of `train` that have a label."""
        encoder, seen = ctx.model.encoder, 0
        moments = _Moments(positions=encoder.grid**2, width=2 * encoder.embed_dim)
        for features in _patch_features(ctx, self.train):
            rows = range(seen, seen + len(features))
            labels = np.stack([self._patch_labels(row, features.shape[1]) for row in rows])
            seen += len(features)
            labelled = labels.any(axis=1)
            moments.add(features[labelled], labels[labelled])
        return moments.solve(self.ridge)

    def _patch_labels(self, row: int, count: int) -> Float[np.ndarray, " n"]:
        """Of mean 0 and variance 1; zeros where there is no label, or a constant one."""
        patches = resize_map(self.train.raster(row, self.label), _square(count)).reshape(-1)
        return (patches - patches.mean()) / max(patches.std(), 1e-6)


class _Moments:
    """Sums over images from which a regression about the mean at each position follows."""

    def __init__(self, *, positions: int, width: int):
        self._count = 0
        self._shift = np.zeros(width)
        self._features = np.zeros((positions, width))
        self._labels = np.zeros(positions)
        self._gram = np.zeros((width, width))
        self._product = np.zeros(width)

    def add(self, features: Float[np.ndarray, "b n f"], labels: Float[np.ndarray, "b n"]) -> None:
        """Some images."""
        if not self._count and len(features):
            # A constant far from zero would drown the differences in rounding.
            self._shift = features.mean(axis=(0, 1))
        features = features - self._shift
        rows = features.reshape(-1, features.shape[-1])
        self._count += len(features)
        self._features += features.sum(axis=0)
        self._labels += labels.sum(axis=0)
        self._gram += rows.T @ rows
        self._product += rows.T @ labels.reshape(-1)

    def solve(self, ridge: float) -> "_Fit":
        """The weights, under a penalty that is `ridge` times the features' mean variance."""
        features, labels = self._features / self._count, self._labels / self._count
        covariance = self._gram - self._count * features.T @ features
        penalty = ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        product = self._product - self._count * features.T @ labels
        weights = np.linalg.solve(covariance + penalty, product)
        return _Fit(weights=weights, mean_features=features + self._shift, mean_labels=labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fit:
    """A linear map of features about their mean at each position."""

    weights: Float[np.ndarray, " f"]
    mean_features: Float[np.ndarray, "n f"]
    mean_labels: Float[np.ndarray, " n"]


def _patch_features(ctx: EvalContext, data: EvalSet) -> Iterator[Float[np.ndarray, "b n f"]]:
    """Patch tokens beside the pooled vector, float32, a batch at a time."""
    for features in ctx.batches(data, Wants(tokens=True, pooled=True)):
        tokens, pooled = (wanted(f).astype(np.float32) for f in (features.tokens, features.pooled))
        repeated = np.broadcast_to(pooled[:, None], (*tokens.shape[:2], pooled.shape[-1]))
        yield np.concatenate([tokens, repeated], axis=-1)


def _square(count: int) -> tuple[int, int]:
    side = round(count**0.5)
    return side, side


def absrel(prediction: Map, truth: Map) -> float:
    """AbsRel after the affine fit; NaN without two known pixels, inf for a map that is not finite.

    Args:
        prediction: disparity of any size; resized to the truth's.
        truth: inverse depth; 0 where it is unknown.
    """
    known = truth > 0
    if known.sum() < 2:
        return float("nan")
    resized = resize_map(prediction, truth.shape)[known]
    if not np.isfinite(resized).all():
        return float("inf")
    d, y = aligned(resized, truth[known]), truth[known]
    return float(np.mean(np.abs(d - y) / y))


def aligned(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """a x + b nearest to y by least squares; the mean of y when x is constant."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    centred = x - x.mean()
    variance = np.mean(centred**2)
    if variance <= 1e-20 * max(np.mean(x**2), 1e-300):
        return np.full_like(y, y.mean())
    return y.mean() + centred * (np.mean(centred * (y - y.mean())) / variance)
