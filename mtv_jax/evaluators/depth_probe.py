# SPDX-License-Identifier: Apache-2.0
"""Linear metric depth: RMSE in metres of DINOv2's depth head on frozen features.

A patch's feature is its token before the final norm beside the pooled vector; a linear map gives
scores of 256 depths, four times as fine as the patches (MTV section 5.2, section 10 of the
specification; arXiv 2304.07193, appendix B):

    p = (relu(s) + 0.1) / Σ (relu(s) + 0.1),      depth = Σ p · bin,      bins even in [0.001, 10]

The loss is AdaBins' (2011.14141), √(var g + 0.15 (mean g)²) with g = log depth - log truth, over
the pixels of two images, as published runs had two on each GPU; in the first 100 steps without
the variance. Published code adds a gradient loss that takes its differences along the batch and
the channels, and so is zero for two images (tests/golden): it is left out here.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, UInt8

from input_pipeline.crops import Cut
from input_pipeline.decode import resize_map
from input_pipeline.eval_data import EvalData
from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError
from mtv_jax.core.passes import Features, Wants, wanted
from mtv_jax.dist.mesh import replicated
from mtv_jax.evaluators.base import EvalContext, EvalModel, Evaluator
from mtv_jax.evaluators.base_probe import Probe, Recipe, train_heads
from mtv_jax.evaluators.base_resample import bilinear_weights

Map = Float[np.ndarray, "h w"]
_WANTS = Wants(last_raw=True, pooled=True)
_FINER = 4  # than the patches
_EPSILON = 1e-3  # metres, inside logarithms
_GROUP = 2
_PRIOR = 500  # maps that the chance level is the mean of
_BATCH = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthProbe(Evaluator):
    """RMSE, AbsRel and δ₁, means over images, for every learning rate; the least RMSE counts.

    Attributes:
        train: images with the same column.
        recipe: how the head is trained.
        height: of the images that are scored, in pixels; they are squashed.
        width: of the images that are scored.
        truth: column of the true map in metres times `units`, 0 where it is unknown.
        units: what a metre is.
        nearest: the first bin, in metres.
        farthest: the last bin, in metres; what is farther is not scored.
        bins: depths that are mixed.
        scale_steps: first steps, whose loss is without the variance; published runs are long.
    """

    train: EvalData
    recipe: Recipe
    height: int = at_least(1)
    width: int = at_least(1)
    truth: str = "metric_depth"
    units: float = 1.0
    nearest: float = 1e-3
    farthest: float = 10.0
    bins: int = at_least(2, 256)
    scale_steps: int = at_least(0, 100)

    def check(self, columns: Collection[str]) -> None:
        super().check(columns)
        self.train.open()
        for data in (self.data, self.train):
            data.require(self.truth)
        if not any(self.metres(self.data, row).any() for row in range(len(self.data))):
            raise UserError(f"no row of {self.data} has a map in its column {self.truth!r}")

    def unavailable(self, model: EvalModel) -> str:
        patch = model.encoder.patch_size
        if self.height % patch or self.width % patch:
            return f"patches of {patch} do not divide images of {self.height} x {self.width}"
        return self.recipe.unavailable(model)

    def metres(self, data: EvalData, row: int) -> Map:
        """The truth of one image; 0 where it is unknown or too far."""
        metres = data.raster(row, self.truth).astype(np.float32) / np.float32(self.units)
        return np.where(metres <= self.farthest, metres, np.float32(0))

    def run(self, ctx: EvalContext) -> dict[str, float]:
        head = DepthHead(nearest=self.nearest, farthest=self.farthest, bins=self.bins)
        loss = functools.partial(log_depth_loss, scale_steps=self.scale_steps)
        probe = Probe(head=head, wants=_WANTS, loss=loss, group=_GROUP)

        def sample(row: int, rng: np.random.Generator) -> Cut:
            whole = Cut(self.train.image(row), self.metres(self.train, row))
            return self.recipe.crops.cut(rng, ctx.model.images, whole, outside=0.0)

        heads = train_heads(ctx, probe, self.recipe, sample, len(self.train))
        errors: dict[str, list[float]] = {}
        prior = self._prior()
        for row, found in enumerate(self._predictions(ctx, probe, heads)):
            truth = self.metres(self.data, row)
            named = {f"_lr{lr:g}": map_ for lr, map_ in zip(self.recipe.lrs, found, strict=True)}
            for name, prediction in {**named, "/chance": prior}.items():
                for measure, value in depth_errors(prediction, truth).items():
                    errors.setdefault(f"{measure}{name}", []).append(value)
        numbers = {name: float(np.nanmean(values)) for name, values in errors.items()}
        best = min(self.recipe.lrs, key=lambda lr: numbers[f"rmse_lr{lr:g}"])
        headline = {m: numbers[f"{m}_lr{best:g}"] for m in ("rmse", "absrel", "delta1")}
        return {**headline, **numbers, "images": float(len(self.data))}

    def _prior(self) -> Map:
        """The mean known depth at every place, over some training maps."""
        rows = np.unique(np.linspace(0, len(self.train) - 1, _PRIOR).astype(int))
        total, known = np.zeros((2, self.height, self.width))
        for row in rows:
            metres = self.metres(self.train, row)
            share = resize_map(metres > 0, (self.height, self.width))
            total += resize_map(metres, (self.height, self.width))
            known += share
        return np.where(known > 0, total / np.maximum(known, 1e-6), total.sum() / known.sum())

    def _predictions(
        self, ctx: EvalContext, probe: Probe, heads: list[PyTree]
    ) -> Iterator[Float[np.ndarray, "heads h w"]]:
        """Depths of every image by each head: the mean of the image's and its mirror image's."""

        def run(heads: list[PyTree], params: PyTree, images: Array) -> Array:
            pixels = ctx.model.images.pixels(images)
            ways = (pixels, pixels[..., ::-1, :])
            found, mirrored = (probe.outputs(ctx, heads, params["backbone"], p) for p in ways)
            return (found + mirrored[..., ::-1]) / 2

        def read(row: int) -> UInt8[np.ndarray, "h w 3"]:
            return ctx.model.images.resize(self.data.image(row), (self.height, self.width))

        compiled = jax.jit(run, out_shardings=replicated(ctx.mesh))
        fn = functools.partial(compiled, jax.device_put(heads, replicated(ctx.mesh)))
        for batch in ctx.over(fn, read, len(self.data), batch_size=_BATCH):
            yield from batch


class DepthHead(nn.Module):
    """Depth as a mixture of bins, [b, 4 h, 4 w].

    The linear map comes before the resizing, with which it commutes.
    """

    nearest: float
    farthest: float
    bins: int

    @nn.compact
    def __call__(
        self,
        features: Features,
        grid: tuple[int, int],
        valid: Bool[Array, " b"],
        *,
        training: bool = False,
    ) -> Float[Array, "b h w"]:
        del valid, training
        tokens = wanted(features.last_raw).astype(jnp.float32)
        pooled = jnp.broadcast_to(wanted(features.pooled)[:, None], tokens.shape)
        x = jnp.concatenate([tokens, pooled.astype(jnp.float32)], axis=-1)
        bound = x.shape[-1] ** -0.5  # PyTorch's initialisation of a convolution

        def uniform(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        scores = nn.Dense(self.bins, kernel_init=uniform, bias_init=uniform)(x)
        scores = scores.reshape(len(x), *grid, -1)
        rows, columns = (bilinear_weights(side, _FINER * side) for side in grid)
        scores = jnp.einsum("Hh,Ww,bhwk->bHWk", rows, columns, scores, precision="highest")
        shares = nn.relu(scores) + 0.1
        bins = jnp.linspace(self.nearest, self.farthest, self.bins)
        return (shares * bins).sum(axis=-1) / shares.sum(axis=-1)  # all of float32


def log_depth_loss(
    outputs: Float[Array, "b h w"],
    targets: Float[Array, "b height width"],
    valid: Bool[Array, " b"],
    step: Array,
    *,
    scale_steps: int = 100,
) -> Float[Array, ""]:
    """AdaBins' loss of depths at the crop's size: mean over pairs of images with a known pixel."""
    rows, columns = map(bilinear_weights, outputs.shape[1:], targets.shape[1:])
    depth = jnp.einsum("Hh,Ww,bhw->bHW", rows, columns, outputs, precision="highest")
    known = (targets > 0) & valid[:, None, None]
    truth = jnp.where(known, targets, 1.0)
    g = jnp.where(known, jnp.log(depth + _EPSILON) - jnp.log(truth + _EPSILON), 0.0)
    g, known = (x.reshape(-1, _GROUP * targets[0].size) for x in (g, known))
    count = known.sum(axis=-1)
    mean = g.sum(axis=-1) / jnp.maximum(count, 1)
    deviations = jnp.where(known, g - mean[:, None], 0.0)
    variance = (deviations**2).sum(axis=-1) / jnp.maximum(count - 1, 1)
    square = 0.15 * mean**2 + jnp.where(step < scale_steps, 0.0, variance)
    some = (count > 1) & (square > 0)  # the root has no slope at 0
    losses = jnp.where(some, jnp.sqrt(jnp.where(some, square, 1.0)), 0.0)
    return losses.sum() / jnp.maximum((count > 1).sum(), 1)


def depth_errors(prediction: Map, truth: Map) -> dict[str, float]:
    """RMSE in metres, AbsRel, and the share of pixels within a factor of 1.25; NaN without truth.

    Args:
        prediction: metres, of any size; resized to the truth's.
        truth: metres; 0 where it is unknown.
    """
    known = truth > 0
    if not known.any():
        return dict.fromkeys(("rmse", "absrel", "delta1"), float("nan"))
    found = resize_map(prediction, truth.shape)[known].astype(np.float64)
    metres = truth[known].astype(np.float64)
    ratio = np.maximum(found / metres, metres / np.maximum(found, 1e-9))
    return {
        "rmse": float(np.sqrt(np.mean((found - metres) ** 2))),
        "absrel": float(np.mean(np.abs(found - metres) / metres)),
        "delta1": float((ratio < 1.25).mean()),
    }
