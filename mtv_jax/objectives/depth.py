# SPDX-License-Identifier: Apache-2.0
"""Relative depth from pseudo-labels (MTV section 4.3 and appendix A.2; losses after MiDaS).

Labels and predictions are disparities (large = near) and are compared after subtracting the median
and dividing by the mean absolute deviation, per sample:

    L = L_ssitrim + 2 L_gm,   L_ssitrim = 1 / (2 HW) Σ_j r_j [r_j ≤ τ],   r = |d* - d̂*|
    L_gm = Σ_k mean(|∂x Δ^k| + |∂y Δ^k|),   Δ = d̂* - d*,   Δ^k = Δ at stride 2^k, k = 0 … 3

Deviations from MTV as printed: the gradient term takes normalised maps and a mean per scale (as
printed it would be thousands of times the other term), and τ is the 0.9 quantile of the sample. A
label that is (nearly) constant says nothing: such a sample takes no part.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtv_jax.core.config import at_least
from mtv_jax.core.fields import DEPTH, DEPTH_AGREEMENT, IMAGE, Field
from mtv_jax.core.masking import masked_mean
from mtv_jax.core.passes import Features, Pass, Plan, Wants
from mtv_jax.core.selection import median, order_statistic
from mtv_jax.nn.dpt import DPT
from mtv_jax.objectives.base import Context, Heads, LossOut, Objective, Outputs
from mtv_jax.views.batch import Batch

_SCALES = (1, 2, 4, 8)
_LEAST_SCALE = 1e-6
_UINT16 = 65535.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depth(Objective):
    """A dense head on four normed taps against the depth map under the same window.

    Attributes:
        image_view: the view that is predicted.
        layers: 0-indexed blocks that the head reads, shallow to deep.
        features: width of the head's fusion path.
        channels: width of each tap in the head.
        kept: share of a sample's pixels, those of least residual, that count.
        gradient_weight: of L_gm.
        least_spread: mean absolute deviation, as a share of the label's range, below which a label
            counts as constant.
        least_agreement: of a label with that of the mirror image, where its expert compared them;
            -1 takes all, also those that were not compared.
    """

    image_view: str = "global_crop"
    layers: tuple[int, int, int, int] = (2, 5, 8, 11)
    features: int = at_least(2, 128)
    channels: tuple[int, int, int, int] = (96, 192, 384, 768)
    kept: float = 0.9
    gradient_weight: float = 2.0
    least_spread: float = 1e-3
    least_agreement: float = at_least(-1.0, -1.0)

    @property
    def image_pass(self) -> Pass:
        return Pass(tower="image", view=self.image_view)

    def fields(self) -> tuple[Field, ...]:
        doubts = self.least_agreement > -1.0
        return (IMAGE, DEPTH, DEPTH_AGREEMENT) if doubts else (IMAGE, DEPTH)

    def passes(self) -> Plan:
        return {self.image_pass: self.predicts()}

    def heads(self) -> Mapping[str, nn.Module]:
        return {"depth_dpt": DPT(features=self.features, channels=self.channels)}

    def predicts(self) -> Wants:
        return Wants(taps=self.layers, tapped_norm=True)

    def predict(
        self, image: Features, heads: Heads, *, grid: int, size: int
    ) -> dict[str, Float[Array, "b h w"]]:
        """The map "disparity": large is near, scale and shift mean nothing."""
        taps = [image.taps_normed[layer] for layer in self.layers]
        return {"disparity": heads["depth_dpt"](taps, grid=grid, size=size)}

    def project(self, ctx: Context) -> Outputs:
        label = ctx.batch.under(self.image_view, "depth") / _UINT16
        predicted = self.predict(
            ctx.of(self.image_pass),
            ctx.student,
            grid=ctx.batch.grid(self.image_view),
            size=label.shape[-1],
        )["disparity"]
        terms = depth_terms(predicted, label, kept=self.kept)
        sound = self.trusted(ctx.batch) & (deviation(label) >= self.least_spread)
        return Outputs(rows={**terms, "valid": sound})

    def trusted(self, batch: Batch) -> Bool[Array, " b"]:
        """Samples with a label that its expert did not doubt too much."""
        valid = batch.valid["image"] & batch.valid["depth"]
        if self.least_agreement > -1.0:
            agreement = batch.columns["depth_agreement"]
            valid &= batch.valid["depth_agreement"] & (agreement >= self.least_agreement)
        return valid

    def loss(self, outputs: Outputs, ctx: Context) -> LossOut:
        del ctx
        rows, valid = outputs.rows, outputs.rows["valid"]
        trimmed, gradient = (
            masked_mean(rows["trimmed"], valid),
            masked_mean(rows["gradient"], valid),
        )
        metrics = {
            "trimmed": trimmed,
            "gradient": gradient,
            "valid_share": jnp.mean(valid.astype(jnp.float32)),
        }
        return LossOut(loss=trimmed + self.gradient_weight * gradient, metrics=metrics)


def depth_terms(
    predicted: Float[Array, "b h w"], label: Float[Array, "b h w"], *, kept: float
) -> dict[str, Float[Array, " b"]]:
    """Per sample the trimmed residual and the multi-scale gradient term, float32."""
    difference = normalized(predicted.astype(jnp.float32)) - normalized(label)
    residual = jnp.abs(difference).reshape(difference.shape[0], -1)
    count = residual.shape[-1]
    inside = jnp.where(residual <= _threshold(residual, int(kept * count)), residual, 0.0)
    return {
        "trimmed": jnp.sum(inside, axis=-1) / (2 * count),
        "gradient": jnp.stack([_gradients(difference[:, ::s, ::s]) for s in _SCALES]).sum(axis=0),
    }


def _threshold(residual: Float[Array, "b n"], count: int) -> Float[Array, "b 1"]:
    """A value between the `count` smallest and the others, so that rounding moves none across."""
    fixed = jax.lax.stop_gradient(residual)
    last = order_statistic(fixed, count - 1)
    after = order_statistic(fixed, min(count, residual.shape[-1] - 1))
    return (0.5 * (last + after))[:, None]


def normalized(disparity: Float[Array, "b h w"]) -> Float[Array, "b h w"]:
    """(d - median) / mean |d - median| per sample."""
    centred = disparity - _median(disparity)[:, None, None]
    scale = jnp.mean(jnp.abs(centred), axis=(1, 2), keepdims=True)
    return centred / jnp.maximum(scale, _LEAST_SCALE)


def deviation(disparity: Float[Array, "b h w"]) -> Float[Array, " b"]:
    """Mean |d - median| per sample."""
    return jnp.mean(jnp.abs(disparity - _median(disparity)[:, None, None]), axis=(1, 2))


def _median(x: Float[Array, "b h w"]) -> Float[Array, " b"]:
    return median(x.reshape(x.shape[0], -1))


def _gradients(difference: Float[Array, "b h w"]) -> Float[Array, " b"]:
    """Mean over pixels of |∂x| + |∂y|, forward differences, edges dropped."""
    size = difference.shape[1] * difference.shape[2]
    along_x = jnp.abs(jnp.diff(difference, axis=2)).sum(axis=(1, 2))
    along_y = jnp.abs(jnp.diff(difference, axis=1)).sum(axis=(1, 2))
    return (along_x + along_y) / size
