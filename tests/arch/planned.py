# SPDX-License-Identifier: Apache-2.0
"""The declarations of every planned objective against the contract.

What each one needs: columns, views, passes and what is wanted of
them, heads, slots, groups. The arithmetic is a stand-in: `read` touches every feature and calls
every head, on values of the shapes that the method works on, and gives one number per sample.
An objective leaves this file when it is built.
"""

import abc
import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree, Shaped

from mtv_jax.core.fields import CAPTION, IMAGE, Field
from mtv_jax.core.masking import masked_mean
from mtv_jax.core.passes import Pass, Plan, Wants, wanted
from mtv_jax.nn.contrast import SigmoidLogits, normalize
from mtv_jax.objectives.base import Context, LossOut, Objective, Outputs
from mtv_jax.views.batch import Batch
from tests.arch.probes import MixtureProbe, exact_half_mask

LABEL = Field(name="label", dtype="int32")
NORMALS = Field(name="normals", shape="h w 3", dtype="uint8", geometry="vector_raster")
SEMSEG = Field(name="semseg", shape="h w", dtype="uint8", geometry="raster", resample="nearest")

CLEAN = Pass(tower="image", view="global_crop")
CAPTIONS = Pass(tower="text", view="caption")


def per_sample(x: Shaped[Array, "b ..."]) -> Float[Array, " b"]:
    """Mean of squares over everything but the batch, float32."""
    return jnp.square(x.astype(jnp.float32)).reshape(x.shape[0], -1).mean(axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned(Objective):
    """A declaration with a stand-in loss: the masked mean of `read`."""

    def fields(self) -> tuple[Field, ...]:
        return (IMAGE,)

    def needs(self) -> tuple[str, ...]:
        """Columns without which a sample takes no part."""
        return tuple(field.name for field in self.fields())

    @abc.abstractmethod
    def read(self, ctx: Context) -> Float[Array, " b"]:
        """One number per sample that depends on all features and heads."""

    def valid(self, batch: Batch) -> Bool[Array, " b"]:
        """Samples that have every needed column."""
        columns = [batch.valid[name] for name in self.needs()]
        return jnp.stack(columns).all(axis=0)

    def project(self, ctx: Context) -> Outputs:
        return Outputs(rows={"value": self.read(ctx), "valid": self.valid(ctx.batch)})

    def loss(self, outputs: Outputs, ctx: Context) -> LossOut:
        del ctx
        return LossOut(loss=masked_mean(outputs.rows["value"], outputs.rows["valid"]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class M3I(MixtureProbe):
    """M3I: the mixture probe, and captions against both images of the mixture."""

    def fields(self) -> tuple[Field, ...]:
        return (IMAGE, CAPTION, LABEL)

    def passes(self) -> Plan:
        return {**super().passes(), CAPTIONS: Wants(pooled=True)}

    def heads(self) -> Mapping[str, nn.Module]:
        semantic = {"m3i_pool": nn.Dense(16), "m3i_classes": nn.Dense(5)}
        return {**super().heads(), **semantic, "vl_logits": SigmoidLogits(10.0, -10.0)}

    def project(self, ctx: Context) -> Outputs:
        dense, tokens = super().project(ctx), wanted(ctx.of(self.student).tokens)
        vector = normalize(ctx.student["m3i_pool"](tokens.mean(axis=1)))
        text = normalize(wanted(ctx.of(CAPTIONS).pooled))
        predicted = nn.log_softmax(ctx.student["m3i_classes"](vector))
        label = ctx.batch.columns["label"] % 5
        category = -jnp.take_along_axis(predicted, label[:, None], axis=-1)[:, 0]
        rows = {
            "image": vector,
            "text": text,
            "category": category,
            "has_text": ctx.batch.valid["caption"] & dense.rows["valid"],
            "has_label": ctx.batch.valid["label"] & dense.rows["valid"],
        }
        # mean_a z_a' C z_a over all pairs is tr(C S) / n²: sums of D × D, no pair is ever formed.
        second_moment = {"prediction": jnp.einsum("bd,be->de", vector, vector)}
        return Outputs(rows={**dense.rows, **rows}, sums=second_moment)

    def loss(self, outputs: Outputs, ctx: Context) -> LossOut:
        rows, logits = outputs.rows, ctx.student["vl_logits"]()
        cosine = (rows["image"] * rows["text"]).sum(-1)
        contrast = jnp.exp(logits["logit_scale"]) * cosine + logits["logit_bias"]
        terms = masked_mean(contrast, rows["has_text"])
        terms += masked_mean(rows["category"], rows["has_label"])
        return LossOut(loss=super().loss(outputs, ctx).loss + terms)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SSP(Planned):
    """M3I's grid of single-input methods, here visible tokens only and pixel targets."""

    @property
    def visible(self) -> Pass:
        return Pass(
            tower="image",
            view="second",
            patch_mask=f"{self.name}/patch_mask",
            mask_mode="drop",
            num_kept=2,
        )

    def derive(self, batch: Batch, keys: Key[Array, " b"]) -> dict[str, Shaped[Array, "b ..."]]:
        return {f"{self.name}/patch_mask": exact_half_mask(keys, batch.grid("second") ** 2)}

    def passes(self) -> Plan:
        return {self.visible: Wants(tokens=True)}

    def heads(self) -> Mapping[str, nn.Module]:
        return {"ssp_decoder": nn.Dense(3)}

    def read(self, ctx: Context) -> Float[Array, " b"]:
        tokens = wanted(ctx.of(self.visible).tokens)
        assert tokens.shape[1] == 2, "masked patches never enter the tower"
        target = ctx.batch.inputs["global_crop"].mean(axis=(1, 2))
        return per_sample(ctx.student["ssp_decoder"](tokens) - target[:, None])


@dataclasses.dataclass(frozen=True, kw_only=True)
class SakDistill(Planned):
    """SAK: adapter paths over every block against a frozen expert's taps (arXiv 2410.14633)."""

    layers: tuple[int, ...] = (0, 1, 2, 3)

    expert = Pass(tower="image", view="global_crop", who="frozen/probe")

    def passes(self) -> Plan:
        wants = Wants(taps=self.layers, embedded=True)
        return {CLEAN: wants, self.expert: Wants(taps=(0,))}

    def heads(self) -> Mapping[str, nn.Module]:
        return {"tsap_probe": nn.Dense(16), "aligner_probe": nn.Dense(8)}

    def path(self, ctx: Context) -> Array:
        """The expert's adapter path after the last block [b n d]."""
        state = wanted(ctx.of(CLEAN).embedded)
        for layer in self.layers:
            state = ctx.student["tsap_probe"](state + ctx.of(CLEAN).taps[layer])
        return state

    def read(self, ctx: Context) -> Float[Array, " b"]:
        target = ctx.of(self.expert).taps[0]
        return per_sample(ctx.student["aligner_probe"](self.path(ctx)) - target)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SakTasks(SakDistill):
    """SAK's second stage: routers with noise per sample, decoders normed over the global batch.

    Statistics of the whole batch are not known under the micro-batch map, so the decoder's batch
    norm runs in `loss` on the stacked maps, and its running statistics are slots.
    """

    def fields(self) -> tuple[Field, ...]:
        return (IMAGE, SEMSEG, NORMALS)

    def heads(self) -> Mapping[str, nn.Module]:
        shared = {"tsap_probe": nn.Dense(16), "aligner_probe": nn.Dense(8)}
        return {**shared, "router": nn.Dense(2), "decoder": nn.Dense(5)}

    def slots(self) -> PyTree:
        return {"mean": jnp.zeros((16,))}

    def derive(self, batch: Batch, keys: Key[Array, " b"]) -> dict[str, Shaped[Array, "b ..."]]:
        return {f"{self.name}/noise": jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)}

    def project(self, ctx: Context) -> Outputs:
        stem = ctx.of(CLEAN).taps[self.layers[-1]]
        gate = ctx.student["router"](stem.mean(axis=1)) + ctx.batch.inputs[f"{self.name}/noise"]
        gate = nn.softmax(gate)[:, None, None]
        mixed = gate[..., 0] * stem + gate[..., 1] * self.path(ctx)
        labels = ctx.batch.under("global_crop", "semseg") + ctx.batch.under(
            "global_crop", "normals"
        ).mean(axis=-1)
        outputs = super().project(ctx)
        extra = {"mixed": mixed, "label": labels.mean(axis=(1, 2)) / 255}
        return Outputs(rows={**outputs.rows, **extra})

    def loss(self, outputs: Outputs, ctx: Context) -> LossOut:
        rows, valid = outputs.rows, outputs.rows["valid"]
        weight = valid / jnp.maximum(valid.sum(), 1)
        mean = jnp.einsum("b,bd->d", weight, rows["mixed"].mean(axis=1))
        decoded = ctx.student["decoder"](rows["mixed"] - mean)
        value = masked_mean(per_sample(decoded - rows["label"][:, None, None]), valid)
        old = ctx.slots["mean"]
        moved = jnp.where(valid.any(), 0.9 * old + 0.1 * jax.lax.stop_gradient(mean), old)
        return LossOut(loss=super().loss(outputs, ctx).loss + value, slots={"mean": moved})


PLANNED: dict[str, Objective] = {
    "m3i": M3I(name="m3i"),
    "ssp": SSP(name="ssp"),
    "sak_distill": SakDistill(name="sak_distill"),
    "sak_tasks": SakTasks(name="sak_tasks"),
}
