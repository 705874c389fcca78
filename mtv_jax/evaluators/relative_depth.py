# SPDX-License-Identifier: Apache-2.0
"""Relative depth: AbsRel of disparity maps after the best affine fit to each image's truth.

For predicted disparity d and true inverse depth y = 1 / g of an image, over its valid pixels:

    a, b = argmin Σ (a d + b - y)²,      AbsRel = mean |a d + b - y| / y

in disparity space, as the authors of Depth Anything compute it (MTV table 6; crops and ranges are
the data's). The scale of g does not matter. In depth space, for comparison: mean |z - g| / g with
z = 1 / max(a d + b, 1 / farthest) and the same a, b. The chance level is that of one map for all
images, the mean over a training set.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float

from input_pipeline.decode import resize_map
from input_pipeline.eval_data import EvalData
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
        train: images with the column `label`; their mean map is the chance level. None: no chance.
        label: column of disparities in `train`.
        farthest: in the truth's unit; 0 leaves out the error in depth space.
    """

    truth: str = "metric_depth"
    truth_is: Literal["depth", "disparity"] = "depth"
    train: EvalData | None
    label: str = "depth"
    farthest: float = at_least(0.0, 0.0)

    def check(self, columns: Collection[str]) -> None:
        super().check(columns)
        self.data.require(self.truth)
        if self.train is not None:
            self.train.open()
            self.train.require(self.label)
            _require_maps(self.train, self.label)
        _require_maps(self.data, self.truth)

    def run(self, ctx: EvalContext) -> dict[str, float]:
        predictions = list(self.predictions(ctx))
        errors = self.errors(predictions)
        numbers = {"absrel": _mean(errors), "images": float((~np.isnan(errors)).sum())}
        if self.farthest:
            in_depth = functools.partial(absrel_of_depth, farthest=self.farthest)
            numbers["absrel_depth"] = _mean(self.errors(predictions, in_depth))
        if self.train is not None:
            prior = mean_map(self.train, self.label, ctx.model.encoder.image_size)
            numbers["absrel/chance"] = _mean(self.errors([prior] * len(self.data)))
        return numbers

    @abc.abstractmethod
    def predictions(self, ctx: EvalContext) -> Iterable[Map]:
        """Predicted disparities, one map an image of `data`, of any size."""

    def errors(
        self, predictions: Iterable[Map], score: Callable[[Map, Map], float] | None = None
    ) -> Float[np.ndarray, " b"]:
        """AbsRel of every image, in disparity space unless told otherwise; NaN without truth."""
        pairs = zip(predictions, self.truths(), strict=True)
        return np.asarray([(score or absrel)(d, y) for d, y in pairs], np.float64)

    def truths(self) -> Iterator[Map]:
        """True inverse depths, 0 where unknown."""
        return map(self.true_map, range(len(self.data)))

    def true_map(self, row: int) -> Map:
        """Of one image."""
        raster = self.data.raster(row, self.truth).astype(np.float64)
        if self.truth_is == "depth":
            return np.divide(1.0, raster, out=np.zeros_like(raster), where=raster > 0)
        return raster


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadDepth(RelativeDepth):
    """The map of an objective's own head, "zero-shot": nothing is fitted but scale and shift.

    Attributes:
        objective: name of the objective; it predicts a map "disparity".
    """

    train: EvalData | None = None
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

    train: EvalData
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


def _patch_features(ctx: EvalContext, data: EvalData) -> Iterator[Float[np.ndarray, "b n f"]]:
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
    fit = _fit_to(prediction, truth)
    if not isinstance(fit, np.ndarray):
        return fit
    y = truth[truth > 0]
    return float(np.mean(np.abs(fit - y) / y))


def absrel_of_depth(prediction: Map, truth: Map, *, farthest: float) -> float:
    """The same in depth space, the fit still being of disparities."""
    fit = _fit_to(prediction, truth)
    if not isinstance(fit, np.ndarray):
        return fit
    g = 1 / truth[truth > 0]
    return float(np.mean(np.abs(1 / np.maximum(fit, 1 / farthest) - g) / g))


def mean_map(data: EvalData, label: str, size: int) -> Map:
    """Mean of a set's maps at every pixel, [size, size]."""
    total = np.zeros((size, size))
    for row in range(len(data)):
        total += resize_map(data.raster(row, label), (size, size))
    return total / len(data)


def _require_maps(data: EvalData, column: str) -> None:
    if not any(data.raster(row, column).any() for row in range(len(data))):
        raise UserError(f"no row of {data} has a map in its column {column!r}")


def _mean(errors: Float[np.ndarray, " b"]) -> float:
    return float(np.nanmean(errors))


def _fit_to(prediction: Map, truth: Map) -> Float[np.ndarray, " n"] | float:
    """The fitted disparities of known pixels, or what the error is without them."""
    known = truth > 0
    if known.sum() < 2:
        return float("nan")
    resized = resize_map(prediction, truth.shape)[known]
    if not np.isfinite(resized).all():
        return float("inf")
    return aligned(resized, truth[known])


def aligned(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """a x + b nearest to y by least squares; the mean of y when x is constant."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    centred = x - x.mean()
    variance = np.mean(centred**2)
    if variance <= 1e-20 * max(np.mean(x**2), 1e-300):
        return np.full_like(y, y.mean())
    return y.mean() + centred * (np.mean(centred * (y - y.mean())) / variance)
