# SPDX-License-Identifier: Apache-2.0
"""The laws of the house, over every objective and the two probes."""

import copy
import dataclasses
import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core.errors import UserError
from mtv_jax.dist.mesh import MeshConfig, make_mesh, put_batch
from tests.arch import systems
from tests.arch.probes import DistillProbe
from tests.arch.systems import (
    BATCH,
    OBJECTIVES,
    assert_gradients_close,
    evaluate,
    tiny_batch,
    tiny_model,
)

ALONE = [(name,) for name in OBJECTIVES]
TOGETHER = tuple(OBJECTIVES)
SETS = [*ALONE, TOGETHER]


def _norm(tree) -> float:
    return float(sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(tree)))


def _permuted(batch, order):
    return jax.tree.map(lambda x: x[order], batch)


@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_law_1_finite_loss_and_gradient(names):
    out = evaluate(names)
    chex.assert_tree_all_finite((out.losses, out.grads))
    assert all(abs(float(loss)) > 0 for loss in out.losses.values())
    assert _norm(out.grads["backbone"]["image"]) > 0


def test_law_1_all_together_reach_every_head_and_slot():
    out = evaluate(TOGETHER)
    heads = {name: _norm(grads) for name, grads in out.grads["heads"].items()}
    slots = {name: _norm(slots) for name, slots in out.slots.items() if slots}
    assert min(heads.values()) > 0 and min(slots.values()) > 0, (heads, slots)
    assert _norm(out.grads["backbone"]["image"]["mask_token"]) > 0


@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_law_2_all_invalid_batch_does_nothing(names):
    model = tiny_model(names)
    batch = tiny_batch(model)
    batch["valid"] = {k: np.zeros_like(v) for k, v in batch["valid"].items()}
    out = evaluate(names, batch)
    assert all(float(loss) == 0.0 for loss in out.losses.values())
    assert _norm(out.grads) == 0.0
    for name, slots in out.slots.items():
        if slots is not None:
            chex.assert_trees_all_equal(slots, model.init_slots()[name])


@pytest.mark.parametrize("names", [TOGETHER], ids="+".join)
def test_law_3_permuting_groups_changes_nothing(names):
    group = math.lcm(
        *(n for o in names for n in (OBJECTIVES[o].group(), OBJECTIVES[o].loss_group()))
    )
    order = np.arange(BATCH).reshape(-1, group)[::-1].reshape(-1)
    batch = tiny_batch(tiny_model(names))
    before, after = evaluate(names, batch), evaluate(names, _permuted(batch, order))
    chex.assert_trees_all_close(before.losses, after.losses, rtol=1e-5)
    assert_gradients_close(before.grads, after.grads)


@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_law_4_what_is_in_an_invalid_sample_does_not_matter(names):
    model = tiny_model(names)
    batch = tiny_batch(model)
    batch["valid"] = copy.deepcopy(batch["valid"])
    for column in batch["valid"].values():
        column[3] = False
    poisoned = {k: v if isinstance(v, dict) else np.array(v) for k, v in batch.items()}
    for name in batch["valid"]:
        if poisoned[name].dtype == np.float32:
            poisoned[name][3] = np.nan
        else:
            poisoned[name][3] = np.iinfo(poisoned[name].dtype).max
    poisoned["image_size"][3] = 0
    before, after = evaluate(names, batch), evaluate(names, poisoned)
    chex.assert_tree_all_finite(after.grads)
    chex.assert_trees_all_close(before.losses, after.losses, rtol=1e-6)
    chex.assert_trees_all_close(before.grads, after.grads, atol=1e-6)


def test_law_4_validity_is_per_column():
    """Without its caption a sample leaves the contrast, not the other objectives."""
    model = tiny_model(TOGETHER)
    batch = tiny_batch(model)
    batch["valid"] = copy.deepcopy(batch["valid"])
    batch["valid"]["caption"][5] = False
    before, after = evaluate(TOGETHER), evaluate(TOGETHER, batch)
    assert float(before.losses["sigmoid_vl"]) != float(after.losses["sigmoid_vl"])
    chex.assert_trees_all_equal(before.losses["distill"], after.losses["distill"])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_law_5_a_neighbour_changes_no_first_value(name):
    alone, beside = evaluate((name,)), evaluate(TOGETHER)
    assert float(alone.losses[name]) == float(beside.losses[name])


@pytest.mark.parametrize("names", [TOGETHER], ids="+".join)
@pytest.mark.parametrize("shape", [(8, 1), (2, 4)], ids=["data8", "data2-fsdp4"])
def test_law_6_eight_devices_equal_one(names, shape):
    one = evaluate(names)
    mesh = make_mesh(MeshConfig(data=shape[0], fsdp=shape[1]))
    with jax.set_mesh(mesh):
        eight = evaluate(names, put_batch(mesh, BATCH, tiny_batch(tiny_model(names))))
    chex.assert_trees_all_close(one.losses, eight.losses, rtol=1e-5)
    assert_gradients_close(one.grads, jax.device_get(eight.grads))
    chex.assert_trees_all_close(one.slots, jax.device_get(eight.slots), atol=1e-6)


@pytest.mark.parametrize("names", [TOGETHER], ids="+".join)
def test_law_6_four_micro_batches_equal_one(names):
    one, four = evaluate(names), evaluate(names, micro_batches=4)
    chex.assert_trees_all_close(one.losses, four.losses, rtol=1e-5)
    assert_gradients_close(one.grads, four.grads)
    chex.assert_trees_all_close(one.slots, four.slots, atol=1e-6)


@pytest.mark.parametrize("names", [TOGETHER], ids="+".join)
def test_law_6_micro_batches_on_eight_devices(names):
    one = evaluate(names)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2), jax.devices()[:4])
    with jax.set_mesh(mesh):
        both = evaluate(
            names, put_batch(mesh, BATCH, tiny_batch(tiny_model(names))), micro_batches=2
        )
    chex.assert_trees_all_close(one.losses, both.losses, rtol=1e-5)
    assert_gradients_close(one.grads, jax.device_get(both.grads))


@pytest.mark.parametrize("names", ALONE, ids="+".join)
def test_law_7_loss_arithmetic_is_float32(names):
    out = evaluate(names, dtype="bfloat16")
    full = evaluate(names)
    for name, loss in out.losses.items():
        assert loss.dtype == jnp.float32
        # bfloat16 towers move the value a little; bfloat16 loss arithmetic would leave it on a
        # grid of 2^-8 relative steps.
        assert float(loss) != float(loss.astype(jnp.bfloat16).astype(jnp.float32))
        np.testing.assert_allclose(float(loss), float(full.losses[name]), rtol=0.1)


def test_law_8_no_gradient_reaches_the_teacher():
    model, params = tiny_model(TOGETHER), systems.tiny_params(TOGETHER)
    batch = jax.tree.map(jnp.asarray, tiny_batch(model))

    @jax.jit
    def of_teacher(ema):
        weights = systems.Weights(params=params, ema=ema, frozen=systems.FROZEN)
        losses = model.losses(weights, model.init_slots(), batch, jnp.zeros((), jnp.int32))
        return model.total(losses, jnp.zeros((), jnp.int32))

    moved = jax.tree.map(lambda x: x + 0.1, params)
    assert float(of_teacher(params)) != float(of_teacher(moved)), "the teacher is not read"
    assert _norm(jax.grad(of_teacher)(moved)) == 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Careless(DistillProbe):
    """Derives an entry that is not named after itself."""

    width: int = 6

    def derive(self, batch, keys):
        return {"draws": jax.vmap(jax.random.uniform)(keys)}

    def heads(self):
        return {self.head: nn.Dense(self.width)}


@pytest.mark.parametrize(
    ("width", "message"),
    [(6, "two derives 'draws' a second time"), (7, "two redefines the shared head")],
)
def test_what_two_objectives_would_both_define_is_refused(width, message):
    model = tiny_model(("distill",))
    pair = (Careless(name="one"), Careless(name="two", width=width))
    model = dataclasses.replace(model, objectives=pair)
    with pytest.raises(UserError, match=message):
        model.init(jax.random.key(0), tiny_batch(model), systems.FROZEN)
