# SPDX-License-Identifier: Apache-2.0
"""Regions against phrases (MTV section 4.3 and appendix A.2; the prompter is CLOC's idea).

    L = 1/R Σ_r [ softplus(-l_{r,u(r)}) + Σ_{u≠u(r)} n_u softplus(l_ru) ],   l_ru = τ ⟨ẑ_r, t̂_u⟩ + β

over the R valid regions of the global batch: ẑ_r is the prompter's unit vector of region r, t̂_u the
text tower's of phrase u, u(r) the phrase of r, and n_u how many valid regions have it. Deviations
from MTV as printed: regions of one phrase are no negatives of each other (printed: every other
region is, and most regions of a large batch share their phrase with hundreds); so every distinct
phrase is encoded once, which equals the sum over all pairs of regions; the prompter's query knows
the box (`nn/prompter.py`); the mean is over regions; scale and bias are its own.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key, Shaped

from mtv_jax.core.config import at_least
from mtv_jax.core.fields import BOXES, IMAGE, PHRASES, SCORES, Field
from mtv_jax.core.masking import masked_mean
from mtv_jax.core.passes import Pass, Plan, Wants, wanted
from mtv_jax.dist.collectives import pairwise_rows
from mtv_jax.nn.contrast import SigmoidLogits, blind_loss, normalize
from mtv_jax.nn.prompter import Prompter, Reading
from mtv_jax.objectives.base import Alarm, Context, LossOut, Objective, Outputs
from mtv_jax.views.batch import Batch
from mtv_jax.views.geometry import keep_boxes

Texts = Literal["full_vocab", "unique", "per_region"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Regions:
    """Sampled regions.

    Attributes:
        boxes: corners in [0, 1] of the view, clipped to it.
        phrase: index into the vocabulary.
        valid: whether there is such a region.
    """

    boxes: Float[Array, "b r 4"]
    phrase: Int32[Array, "b r"]
    valid: Bool[Array, "b r"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grounding(Objective):
    """Sigmoid contrast of regions and phrases over the global batch.

    Attributes:
        image_view: the view that is read.
        text_view: a table view of phrases.
        texts: which phrases are encoded: the whole vocabulary, the distinct ones of the batch, or
            one for every region, equal or not.
        max_phrases: with "unique", how many are encoded; regions of further ones are dropped.
        max_regions: regions drawn per image.
        least_score: of a region's label; 0 takes all, also those without a score.
        keep_fraction: least share of a box's area that the crop leaves.
        least_side: of a clipped box, in pixels of the view.
        most_overlap: IoU above which two boxes are not both drawn.
        num_heads: of the prompter.
        mlp_dim: of the prompter.
        reading: how a box enters the prompter.
        init_scale: exp(τ') at the start.
        init_bias: β at the start.
        chunk: regions at a time on a device; memory is chunk × phrases.
        dtype: of the prompter's layers.
    """

    image_view: str = "global_crop"
    text_view: str = "region_phrases"
    texts: Texts = "full_vocab"
    max_phrases: int = at_least(1, 1024)
    max_regions: int = at_least(1, 4)
    least_score: float = at_least(0.0, 0.0)
    keep_fraction: float = 0.5
    least_side: float = 8.0
    most_overlap: float = 0.8
    num_heads: int = at_least(1, 12)
    mlp_dim: int = at_least(1, 3072)
    reading: Reading = "fused"
    init_scale: float = at_least(1e-3, 10.0)
    init_bias: float = -10.0
    chunk: int = at_least(1, 512)
    dtype: Literal["float32", "bfloat16"] = "float32"

    @property
    def image_pass(self) -> Pass:
        return Pass(tower="image", view=self.image_view)

    @property
    def text_pass(self) -> Pass:
        return Pass(tower="text", view=self.text_view)

    def fields(self) -> tuple[Field, ...]:
        return (IMAGE, BOXES, PHRASES, SCORES) if self.least_score else (IMAGE, BOXES, PHRASES)

    def passes(self) -> Plan:
        return {self.image_pass: Wants(last_raw=True), self.text_pass: Wants(pooled=True)}

    def heads(self) -> Mapping[str, nn.Module]:
        prompter = Prompter(
            self.num_heads, self.mlp_dim, reading=self.reading, dtype=jnp.dtype(self.dtype)
        )
        logits = SigmoidLogits(self.init_scale, self.init_bias)
        return {"grounding_prompter": prompter, "grounding_logits": logits}

    def derive(self, batch: Batch, keys: Key[Array, " b"]) -> dict[str, Shaped[Array, "b ..."]]:
        regions = self.regions(batch, keys)
        return {f"{self.name}/{key}": value for key, value in vars(regions).items()}

    def tables(
        self,
        batch: Batch,
        keys: Key[Array, " b"],
        vocabularies: Mapping[str, Int32[Array, "u t"]],
    ) -> dict[str, Int32[Array, "u t"]]:
        if self.texts == "full_vocab":
            return {}
        regions, vocabulary = self.regions(batch, keys), vocabularies[self.text_view]
        columns = self._columns(regions.phrase, regions.valid, len(vocabulary))
        return {self.text_view: vocabulary[jnp.maximum(columns["phrase"], 0)]}

    def regions(self, batch: Batch, keys: Key[Array, " b"]) -> Regions:
        """Up to `max_regions` boxes per image that the crop leaves, drawn at random."""
        boxes = batch.under(self.image_view, "boxes")
        side = self.least_side / (batch.grid(self.image_view) * batch.spec.patch_size)
        present = batch.valid["image"] & batch.valid["boxes"] & batch.valid["phrases"]
        kept = keep_boxes(boxes, min_fraction=self.keep_fraction, min_side=side)
        phrase = jnp.where(batch.valid["phrases"][:, None], batch.columns["phrases"], -1)
        kept &= present[:, None] & (phrase >= 0)
        if self.least_score:
            good = batch.columns["scores"] >= self.least_score
            kept &= good & batch.valid["scores"][:, None]
        clipped = jnp.clip(boxes, 0.0, 1.0)
        draw = jax.vmap(self._draw, in_axes=(0, 0, 0, 0))
        chosen, valid = draw(keys, clipped, phrase, kept)
        return Regions(
            boxes=jnp.take_along_axis(clipped, chosen[..., None], axis=1) * valid[..., None],
            phrase=jnp.where(valid, jnp.take_along_axis(phrase, chosen, axis=1), 0),
            valid=valid,
        )

    def project(self, ctx: Context) -> Outputs:
        inputs, grid = ctx.batch.inputs, ctx.batch.grid(self.image_view)
        tokens = wanted(ctx.of(self.image_pass).last_raw)
        vectors = ctx.student["grounding_prompter"](tokens, inputs[f"{self.name}/boxes"], grid=grid)
        rows = {key: inputs[f"{self.name}/{key}"] for key in ("phrase", "valid")}
        return Outputs(
            rows={**rows, "vector": normalize(vectors), "image": ctx.batch.valid["image"]}
        )

    def loss(self, outputs: Outputs, ctx: Context) -> LossOut:
        vector, phrase, drawn = (outputs.rows[key] for key in ("vector", "phrase", "valid"))
        texts = normalize(wanted(ctx.of(self.text_pass).pooled))
        columns = self._columns(phrase, drawn, len(texts))
        logits = ctx.student["grounding_logits"]()
        values = grounding_rows(
            regions={"vector": vector.reshape(-1, vector.shape[-1]), "phrase": phrase.reshape(-1)},
            phrases={"text": texts, **_filled(columns, len(texts))},
            scalars=logits,
            chunk=self.chunk,
        )
        valid = drawn.reshape(-1) & values["found"]
        negatives = masked_mean(values["negatives"], valid)
        count, images = jnp.sum(drawn), outputs.rows["image"]
        alone = images & ~jnp.any(drawn, axis=-1)
        metrics = {
            "accuracy": masked_mean(values["hit"], valid),
            "logit_scale": jnp.exp(logits["logit_scale"]),
            "logit_bias": logits["logit_bias"],
            "regions": count / jnp.maximum(jnp.sum(images), 1),
            "no_region_share": jnp.sum(alone) / jnp.maximum(jnp.sum(images), 1),
            "overflow": (count - jnp.sum(valid)).astype(jnp.float32),
            "blind_loss": blind_loss(negatives + 1),
        }
        return LossOut(loss=masked_mean(values["loss"], valid), metrics=metrics)

    def alarms(self) -> tuple[Alarm, ...]:
        steep = Alarm(
            above={"logit_scale": 100.0},
            problem="the scale of the region logits has run away",
            remedy="lower optim.lr, or its rate by a rule in optim.lr_rules",
        )
        dropped = Alarm(
            above={"overflow": 0.5},
            problem="regions are dropped: a batch has more distinct phrases than max_phrases",
            remedy=f"raise --config.objectives.{self.name}.max_phrases",
        )
        unlabelled = Alarm(
            above={"no_region_share": 0.9},
            problem="most images have no region to be grounded",
            remedy="look at the boxes with python -m tools.data.inspect; a larger "
            f"views.{self.image_view}.area leaves more of them",
        )
        return (steep, dropped, unlabelled)

    def _draw(
        self,
        key: Key[Array, ""],
        boxes: Float[Array, "c 4"],
        phrase: Int32[Array, " c"],
        kept: Bool[Array, " c"],
    ) -> tuple[Int32[Array, " r"], Bool[Array, " r"]]:
        """Indices of one image's regions, distinct phrases first, and which there are.

        Overlapping boxes are not both drawn: they may carry two names of one thing, which the loss
        would hold against each other.
        """
        order = jax.random.uniform(key, kept.shape)
        overlap = box_iou(boxes) > self.most_overlap

        def pick(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Any]:
            free, named = state
            index = jnp.argmax(jnp.where(free, order + ~named, -1.0))
            there = free[index]
            free &= ~(overlap[index] | (jnp.arange(len(free)) == index))
            return (free, named | (phrase == phrase[index])), (index, there)

        start = (kept, jnp.zeros_like(kept))
        _, drawn = jax.lax.scan(pick, start, None, length=self.max_regions)
        return drawn

    def _columns(
        self, phrase: Int32[Array, "b r"], valid: Bool[Array, "b r"], vocabulary_size: int
    ) -> dict[str, Array]:
        """The encoded phrases: "phrase", indices, and "count", how many regions each stands for.

        With "unique" the most frequent of the batch; an index of -1 is no phrase.
        """
        phrase, ones = phrase.reshape(-1), valid.reshape(-1).astype(jnp.float32)
        if self.texts == "per_region":
            return {"phrase": phrase, "count": ones}
        if self.texts == "full_vocab":
            counts = jnp.zeros(vocabulary_size).at[phrase].add(ones)
            return {"phrase": jnp.arange(vocabulary_size), "count": counts}
        size = len(phrase)
        distinct, counts = jnp.unique(
            jnp.where(ones > 0, phrase, -1), size=size, fill_value=-1, return_counts=True
        )
        count, chosen = jax.lax.top_k(
            jnp.where(distinct < 0, 0.0, counts.astype(jnp.float32)), min(self.max_phrases, size)
        )
        return {"phrase": distinct[chosen], "count": count}


def grounding_rows(
    *,
    regions: Mapping[str, Array],
    phrases: Mapping[str, Array],
    scalars: Mapping[str, Float[Array, ""]],
    chunk: int,
) -> dict[str, Shaped[Array, " r"]]:
    """Per region: its sum of pair losses, and what there is to say about it.

    Args:
        regions: "vector" [r, d] and "phrase" [r].
        phrases: "text" [u, d], "phrase" [u] and "count" [u]: how many regions each stands for. A
            phrase may be there several times.
        scalars: "logit_scale" and "logit_bias".
        chunk: regions at a time on a device.

    Returns:
        "loss"; "found", whether its phrase is among `phrases`; "negatives", how many regions have
        another phrase; "hit", whether its own scores highest.
    """
    return pairwise_rows(_region_terms, dict(regions), dict(phrases), dict(scalars), chunk=chunk)


def _region_terms(regions: Any, phrases: Any, scalars: Any) -> dict[str, Shaped[Array, " c"]]:
    cosine = jnp.einsum("cd,ud->cu", regions["vector"], phrases["text"], precision="highest")
    logits = jnp.exp(scalars["logit_scale"]) * cosine + scalars["logit_bias"]
    own = regions["phrase"][:, None] == phrases["phrase"]
    positive = jnp.sum(jnp.where(own, jax.nn.softplus(-logits), 0.0), axis=-1)
    copies = jnp.sum(own, axis=-1)
    weight = jnp.where(own, 0.0, phrases["count"])
    negative = jnp.sum(weight * jax.nn.softplus(logits), axis=-1)
    best = jnp.max(jnp.where(own, logits, -jnp.inf), axis=-1)
    others = jnp.max(jnp.where(weight > 0, logits, -jnp.inf), axis=-1)
    return {
        "loss": positive / jnp.maximum(copies, 1) + negative,
        "found": copies > 0,
        "negatives": jnp.sum(weight, axis=-1),
        "hit": (best > others).astype(jnp.float32),
    }


def box_iou(boxes: Float[Array, "c 4"]) -> Float[Array, "c c"]:
    """Intersection over union of all pairs; 0 for empty boxes."""
    low = jnp.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = jnp.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)
    area = jnp.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    union = area[:, None] + area[None, :] - shared
    return shared / jnp.where(union > 0, union, 1.0)


def _filled(columns: Mapping[str, Array], size: int) -> dict[str, Array]:
    """Columns for a table to which rows were added."""
    missing = size - len(columns["phrase"])
    return {
        "phrase": jnp.pad(columns["phrase"], (0, missing), constant_values=-1),
        "count": jnp.pad(columns["count"], (0, missing)),
    }
