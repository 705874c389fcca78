# SPDX-License-Identifier: Apache-2.0
"""Sigmoid image-text contrast (SigLIP, arXiv 2303.15343; MTV section 4.1, eq. 1).

    L = 1/B Σ_i [ softplus(-l_ii) + Σ_{j≠i} softplus(l_ij) ],   l_ij = exp(τ') ⟨v_i, t_j⟩ + β

Deviations from MTV as printed: the bias is added to the logit, τ' is a log scale, both vectors
are L2-normalised, and the sum is a mean over images. A sample without image or caption leaves the
loss as a row and as a column.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtv_jax.core.config import at_least
from mtv_jax.core.fields import CAPTION, IMAGE, Field
from mtv_jax.core.masking import masked_mean
from mtv_jax.core.passes import Pass, Plan, Wants, wanted
from mtv_jax.dist.collectives import pairwise_rows
from mtv_jax.nn.contrast import SigmoidLogits, blind_loss, normalize
from mtv_jax.objectives.base import Alarm, Context, LossOut, Objective, Outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class SigmoidVL(Objective):
    """Image-text contrast over the global batch.

    Attributes:
        image_view: the view that meets the caption.
        text_view: the caption view.
        init_scale: exp(τ') at the start.
        init_bias: β at the start.
        chunk: rows of the logit matrix at a time on a device; memory is chunk × B.
    """

    image_view: str = "global_crop"
    text_view: str = "caption"
    init_scale: float = at_least(1e-3, 10.0)
    init_bias: float = -10.0
    chunk: int = at_least(1, 512)

    @property
    def image_pass(self) -> Pass:
        return Pass(tower="image", view=self.image_view)

    @property
    def text_pass(self) -> Pass:
        return Pass(tower="text", view=self.text_view)

    def fields(self) -> tuple[Field, ...]:
        return (IMAGE, CAPTION)

    def passes(self) -> Plan:
        return {self.image_pass: Wants(pooled=True), self.text_pass: Wants(pooled=True)}

    def heads(self) -> Mapping[str, nn.Module]:
        return {"vl_logits": SigmoidLogits(self.init_scale, self.init_bias)}

    def project(self, ctx: Context) -> Outputs:
        valid = ctx.batch.valid["image"] & ctx.batch.valid["caption"]
        image, text = (wanted(ctx.of(p).pooled) for p in (self.image_pass, self.text_pass))
        return Outputs(rows={"image": normalize(image), "text": normalize(text), "valid": valid})

    def loss(self, outputs: Outputs, ctx: Context) -> LossOut:
        logits = ctx.student["vl_logits"]()
        values = sigmoid_rows(**outputs.rows, **logits, chunk=self.chunk)
        valid = outputs.rows["valid"]
        metrics = {
            "accuracy": masked_mean(values["hit"], valid),
            "logit_scale": jnp.exp(logits["logit_scale"]),
            "logit_bias": logits["logit_bias"],
            "valid_share": jnp.mean(valid.astype(jnp.float32)),
            "blind_loss": blind_loss(jnp.sum(valid)),
        }
        return LossOut(loss=masked_mean(values["loss"], valid), metrics=metrics)

    def alarms(self) -> tuple[Alarm, ...]:
        steep = Alarm(
            above={"logit_scale": 100.0},
            problem="the scale of the image-text logits has run away",
            remedy="lower optim.lr, or its rate by a rule in optim.lr_rules",
        )
        return (steep,)


def sigmoid_rows(
    *,
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    valid: Bool[Array, " b"],
    logit_scale: Float[Array, ""],
    logit_bias: Float[Array, ""],
    chunk: int,
) -> dict[str, Float[Array, " b"]]:
    """Per image: its sum of pair losses, and whether its own text scores highest.

    Invalid columns are dropped; invalid rows return finite values for the caller to mask.
    """
    index = jnp.arange(image.shape[0])
    rows = {"image": image, "index": index}
    columns = {"text": text, "valid": valid, "index": index}
    scalars = {"scale": logit_scale, "bias": logit_bias}
    return pairwise_rows(_pair_terms, rows, columns, scalars, chunk=chunk)


def _pair_terms(rows: Any, columns: Any, scalars: Any) -> dict[str, Float[Array, " c"]]:
    cosine = jnp.einsum("cd,bd->cb", rows["image"], columns["text"], precision="highest")
    logits = jnp.exp(scalars["scale"]) * cosine + scalars["bias"]
    own = rows["index"][:, None] == columns["index"]
    losses = jnp.where(columns["valid"], jax.nn.softplus(jnp.where(own, -logits, logits)), 0.0)
    others = jnp.where(columns["valid"] & ~own, logits, -jnp.inf).max(axis=-1)
    hit = jnp.where(own, logits, -jnp.inf).max(axis=-1) > others
    return {"loss": losses.sum(axis=-1), "hit": hit.astype(jnp.float32)}
