# SPDX-License-Identifier: Apache-2.0
"""Tiny models for tests of the contract: objectives that exist, probes, and planned ones."""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.fake import fake_batch
from mtv_jax.core.passes import ImageView, TextView, merge_plans, needs_mask_token
from mtv_jax.models.encoder import Encoder
from mtv_jax.models.sizes import SIZES, TowerSize
from mtv_jax.objectives.base import Objective
from mtv_jax.objectives.depth import Depth
from mtv_jax.objectives.grounding import Grounding
from mtv_jax.objectives.koleo import KoLeo
from mtv_jax.objectives.masked_pred import MaskedPred
from mtv_jax.objectives.self_distill import SelfDistill
from mtv_jax.objectives.sigmoid_vl import SigmoidVL
from mtv_jax.training.model import Model, Weights
from mtv_jax.views.batch import BatchSpec
from tests.arch.planned import PLANNED
from tests.arch.probes import DistillProbe, MixtureProbe, probe_expert

PROTOTYPES: dict[str, Any] = dict(prototypes=32, hidden=16, bottleneck=8)
REGIONS: dict[str, Any] = dict(num_heads=2, mlp_dim=32, least_side=1.0, chunk=8)
OBJECTIVES: dict[str, Objective] = {
    "sigmoid_vl": SigmoidVL(name="sigmoid_vl", chunk=4),
    "depth": Depth(name="depth", layers=(0, 1, 2, 3), features=8, channels=(4, 4, 4, 4)),
    "self_distill": SelfDistill(name="self_distill", **PROTOTYPES),
    "masked_pred": MaskedPred(name="masked_pred", **PROTOTYPES),
    "koleo": KoLeo(name="koleo", weight=0.1, group_size=4),
    "grounding": Grounding(name="grounding", **REGIONS),
    "mixture": MixtureProbe(name="mixture"),
    "distill": DistillProbe(name="distill"),
}
# Called and drawn like the first, so that they can be compared with it.
VARIANTS: dict[str, Objective] = {
    f"grounding_{texts}": Grounding(name="grounding", texts=texts, **REGIONS)
    for texts in ("unique", "per_region")
}
BATCH = 16
SIZES["test"] = TowerSize(embed_dim=16, num_layers=4, mlp_dim=32, num_heads=2)
VIEWS = (
    ImageView(name="global_crop", size=16, area=(0.4, 1.0)),
    ImageView(name="second", size=16, area=(0.2, 1.0), flip=0.5),
    ImageView(name="local_crops", size=8, count=2, area=(0.05, 0.4), flip=0.5),
    TextView(name="caption", length=8, pooling_slot=7),
    TextView(name="region_phrases", length=4, pooling_slot=7, field="phrases", table=True),
)
FROZEN = {
    "experts": {"probe": {"kernel": np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)}},
    "tables": {"region_phrases": jnp.arange(128, dtype=jnp.int32).reshape(32, 4) % 31 + 1},
}


@functools.cache
def tiny_model(names: tuple[str, ...], dtype: str = "float32") -> Model:
    """A model of the named objectives over towers of width 16."""
    objectives = tuple((OBJECTIVES | VARIANTS | PLANNED)[name] for name in names)
    fields = {f.name: f for o in objectives for f in o.fields()}
    encoder = Encoder(
        image_size=16,
        patch_size=8,
        image_tower="test",
        text_tower="test",
        vocab_size=32,
        text_length=8,
        dtype=dtype,
        has_mask_token=needs_mask_token(merge_plans(o.passes() for o in objectives)),
    )
    return Model(
        encoder=encoder,
        objectives=objectives,
        spec=BatchSpec(views=VIEWS, fields=tuple(fields.values()), patch_size=8),
        seed=7,
        total_steps=100,
        experts={"probe": probe_expert},
    )


def tiny_batch(model: Model, first_position: int = 0) -> dict[str, Any]:
    """Sixteen valid samples of noise."""
    return fake_batch(
        model.spec.fields,
        batch_size=BATCH,
        canvas=32,
        text_length=8,
        first_position=first_position,
    )


@functools.cache
def tiny_params(names: tuple[str, ...], dtype: str = "float32") -> Any:
    """Parameters of `tiny_model`."""
    model = tiny_model(names, dtype)
    return jax.jit(lambda: model.init(jax.random.key(0), tiny_batch(model), FROZEN))()


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """Losses, gradients and slots of one forward and backward pass."""

    losses: dict[str, Any]
    grads: Any
    slots: Any


def evaluate(
    names: tuple[str, ...],
    batch: dict[str, Any] | None = None,
    *,
    micro_batches: int = 1,
    dtype: str = "float32",
    ema: Any = None,
) -> Evaluated:
    """Loss and gradient of `tiny_model` on a batch; the teacher is a copy of the student."""
    model, params = tiny_model(names, dtype), tiny_params(names, dtype)
    batch = tiny_batch(model) if batch is None else batch
    run = _compiled(names, micro_batches, dtype)
    losses, grads, slots = run(params, params if ema is None else ema, batch)
    return Evaluated(losses=losses, grads=grads, slots=slots)


@functools.cache
def _compiled(names: tuple[str, ...], micro_batches: int, dtype: str) -> Any:
    model = tiny_model(names, dtype)

    def total(params: Any, ema: Any, batch: Any) -> Any:
        weights = Weights(params=params, ema=ema, frozen=FROZEN)
        step = jnp.zeros((), jnp.int32)
        outs = model.losses(weights, model.init_slots(), batch, step, micro_batches=micro_batches)
        slots = {name: out.slots for name, out in outs.items()}
        return model.total(outs, step), ({n: o.loss for n, o in outs.items()}, slots)

    def run(params: Any, ema: Any, batch: Any) -> Any:
        grads, (losses, slots) = jax.grad(total, has_aux=True)(params, ema, batch)
        return losses, grads, slots

    return jax.jit(run)


def assert_gradients_close(expected, actual) -> None:
    """Every leaf within 1e-5 of the largest gradient in the tree."""
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    chex.assert_trees_all_close(expected, actual, rtol=1e-5, atol=1e-5 * max(scale, 1.0))
