# SPDX-License-Identifier: Apache-2.0
"""Tests of mtv_jax.training: the step, its guard, optimiser, teacher and sharded state."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtv_jax.core.errors import UserError
from mtv_jax.core.position import join_position
from mtv_jax.dist.aot import count_collectives
from mtv_jax.dist.mesh import MeshConfig, make_mesh, put_batch
from mtv_jax.objectives.base import LossOut
from mtv_jax.training.ema import EmaConfig
from mtv_jax.training.microbatch import merge_rows, split_rows
from mtv_jax.training.model import Model
from mtv_jax.training.optim import OptimConfig, Optimizer
from mtv_jax.training.state import StateFactory
from mtv_jax.training.step import make_train_step
from tests.arch.probes import DistillProbe
from tests.arch.systems import BATCH, FROZEN, tiny_batch, tiny_model

TEACHER = EmaConfig(
    rules=((r"backbone/image/.*", True), (r"heads/mixture_.*", True), (".*", False))
)
NAMES = ("sigmoid_vl", "mixture", "distill")


def step_factory(names=NAMES, ema=TEACHER, **optim) -> StateFactory:
    optimizer = Optimizer(OptimConfig(warmup_steps=2, **optim), 100)
    return StateFactory(model=tiny_model(names), optimizer=optimizer, ema=ema, frozen=FROZEN)


def _step(factory: StateFactory, micro_batches: int = 1):
    step = make_train_step(
        factory.model, factory.optimizer, factory.ema, micro_batches=micro_batches
    )
    return jax.jit(step)


@functools.cache
def _state(names=NAMES):
    factory = step_factory(names)
    return jax.jit(lambda: factory.init(jax.random.key(0), tiny_batch(factory.model)))()


def test_a_step_moves_everything_it_should():
    factory = step_factory()
    state, metrics = _step(factory)(_state(), FROZEN, tiny_batch(factory.model))
    assert int(state.step) == 1 and int(join_position(np.asarray(state.position))) == BATCH
    assert float(metrics["skipped"]) == 0.0 and np.isfinite(float(metrics["loss"]))
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.params, _state().params)
    still = [k for k, v in jax.tree_util.tree_leaves_with_path(moved) if v == 0.0]
    # Key biases drop out of the softmax; nothing else may stand still.
    assert all("key" in jax.tree_util.keystr(k) for k in still), still
    total = sum(float(metrics[f"{name}/loss"]) for name in NAMES)
    np.testing.assert_allclose(float(metrics["loss"]), total, rtol=1e-6)


def test_3_the_teacher_is_the_ema_set_only():
    ema = _state().ema
    assert set(ema) == {"backbone", "heads"} and set(ema["backbone"]) == {"image"}
    assert set(ema["heads"]) == {"mixture_decoder", "mixture_geometry"}


def test_10_teacher_after_one_step():
    factory = step_factory()
    state, _ = _step(factory)(_state(), FROZEN, tiny_batch(factory.model))
    old, new = _state().ema["backbone"], {"image": state.params["backbone"]["image"]}
    expected = jax.tree.map(lambda o, n: 0.994 * o + 0.006 * n, old, new)
    chex.assert_trees_all_close(state.ema["backbone"], expected, rtol=1e-6, atol=1e-9)
    chex.assert_type(jax.tree.leaves(state.ema), jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exploding(DistillProbe):
    """Finite until its head's kernel meets a poisoned pixel mean."""

    def loss(self, outputs, ctx):
        out = super().loss(outputs, ctx)
        poisoned = jnp.any(ctx.batch.position[:, 1] == 1000)
        return dataclasses.replace(out, loss=jnp.where(poisoned, jnp.nan, 1.0) * out.loss)


def test_a_step_that_is_not_finite_changes_only_step_and_position():
    base = tiny_model(("distill",))
    model = Model(
        **{
            **{f.name: getattr(base, f.name) for f in dataclasses.fields(base)},
            "objectives": (Exploding(name="distill"),),
        }
    )
    factory = dataclasses.replace(step_factory(("distill",), EmaConfig()), model=model)
    state = jax.jit(lambda: factory.init(jax.random.key(0), tiny_batch(model)))()
    step = _step(factory)
    bad, metrics = step(state, FROZEN, tiny_batch(model, first_position=1000))
    assert float(metrics["skipped"]) == 1.0 and not np.isfinite(float(metrics["distill/loss"]))
    for name in ("params", "opt", "ema", "slots"):
        chex.assert_trees_all_equal(getattr(bad, name), getattr(state, name))
    assert int(bad.step) == 1 and int(join_position(np.asarray(bad.position))) == BATCH
    good, metrics = step(bad, FROZEN, tiny_batch(model))
    assert float(metrics["skipped"]) == 0.0 and int(good.step) == 2


def test_adamw_equals_optax_and_rules_freeze():
    params = {"a": jnp.asarray([1.0, -2.0]), "b": jnp.asarray([3.0])}
    grads = {"a": jnp.asarray([0.3, 0.4]), "b": jnp.asarray([5.0])}
    config = OptimConfig(
        lr=0.1, warmup_steps=0, weight_decay=0.01, clip=0.0, decay_rules=(("a", 1.0), ("b", 0.0))
    )
    optimizer = Optimizer(config, 10)
    ours, opt = params, optimizer.init(params)
    reference = optax.adamw(
        optimizer.schedule, 0.9, 0.95, weight_decay=0.01, mask={"a": True, "b": False}
    )
    theirs, ref_state = params, reference.init(params)
    for step in range(3):
        ours, opt = optimizer.update(grads, opt, ours, jnp.asarray(step))
        updates, ref_state = reference.update(grads, ref_state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6)

    frozen = dataclasses.replace(config, lr_rules=(("b", 0.0), (".*", 2.0)), clip=0.5)
    optimizer = Optimizer(frozen, 10)
    moved, _ = optimizer.update(grads, optimizer.init(params), params, jnp.asarray(0))
    assert float(moved["b"][0]) == 3.0
    faster = params["a"] - 0.1 * 2.0 * (jnp.sign(grads["a"]) + 0.01 * params["a"])
    np.testing.assert_allclose(moved["a"], faster, rtol=1e-5)
    with pytest.raises(UserError, match=r"no optim.lr_rules rule matches parameter b"):
        Optimizer(dataclasses.replace(config, lr_rules=(("a", 1.0),)), 10).update(
            grads, opt, params, jnp.asarray(0)
        )


def test_frozen_parameters_do_not_count_when_gradients_are_clipped():
    """A large gradient, then a small one: Adam's moments show what was clipped by how much."""
    params = {"a": jnp.asarray([1.0, -2.0]), "b": jnp.asarray([3.0])}
    config = OptimConfig(lr=0.1, warmup_steps=0, clip=0.5, lr_rules=(("b", 0.0), ("a", 1.0)))
    optimizer = Optimizer(config, 10)
    reference = optax.chain(optax.clip_by_global_norm(0.5), optax.scale_by_adam(0.9, 0.95))
    theirs, ref_state = params["a"], reference.init(params["a"])
    ours, opt = params, optimizer.init(params)
    for step, scale in enumerate((1.0, 0.01)):
        grads = {"a": scale * jnp.asarray([3.0, 4.0]), "b": jnp.asarray([50.0])}
        ours, opt = optimizer.update(grads, opt, ours, jnp.asarray(step))
        updates, ref_state = reference.update(grads["a"], ref_state)
        theirs = theirs - optimizer.schedule(step) * updates
    np.testing.assert_allclose(ours["a"], theirs, rtol=1e-6)


def test_the_total_is_weighted_and_weights_follow_the_progress():
    model = tiny_model(("sigmoid_vl", "distill"))
    weights = {"sigmoid_vl": 0.5, "distill": {0.0: 0.0, 1.0: 4.0}}
    objectives = tuple(dataclasses.replace(o, weight=weights[o.name]) for o in model.objectives)
    model = dataclasses.replace(model, objectives=objectives)
    losses = {o.name: LossOut(loss=jnp.float32(10.0)) for o in objectives}
    assert model.total_steps == 100
    assert float(model.total(losses, jnp.asarray(25))) == 0.5 * 10 + 1.0 * 10


def test_splitting_rows_keeps_runs_together_and_merges_back():
    x = jnp.arange(24).reshape(24, 1)
    np.testing.assert_array_equal(split_rows(x, 3)[1, :, 0], np.arange(8, 16))
    mesh = make_mesh(MeshConfig(data=4), jax.devices()[:4])
    with jax.set_mesh(mesh):
        split = jax.jit(lambda v: split_rows(v, 3))(put_batch(mesh, 24, {"x": np.asarray(x)})["x"])
        merged = jax.jit(merge_rows)(split)
    np.testing.assert_array_equal(split[0, :, 0], [0, 1, 6, 7, 12, 13, 18, 19])
    np.testing.assert_array_equal(merged, x)


@pytest.mark.parametrize("shape", [(8, 1), (2, 4)], ids=["data8", "data2-fsdp4"])
def test_sharded_training_equals_one_device(shape):
    factory = step_factory(("sigmoid_vl",), EmaConfig())
    mesh = make_mesh(MeshConfig(data=shape[0], fsdp=shape[1]))
    with jax.set_mesh(mesh):
        abstract = factory.abstract(mesh, tiny_batch(factory.model))
        state = factory.create(0, tiny_batch(factory.model), abstract)
        step = _step(factory)
        _, metrics = step(state, FROZEN, put_batch(mesh, BATCH, tiny_batch(factory.model)))
    lone = jax.jit(lambda: factory.init(jax.random.key(0), tiny_batch(factory.model)))()
    _, expected = step(lone, FROZEN, tiny_batch(factory.model))
    chex.assert_trees_all_equal(jax.device_get(state.params), jax.device_get(lone.params))
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(float(metrics[name]), float(expected[name]), rtol=1e-5)


def test_11_the_data_parallel_vl_step_has_no_all_to_all_and_no_permute():
    factory = step_factory(("sigmoid_vl",), EmaConfig())
    mesh = make_mesh(MeshConfig(data=8))
    with jax.set_mesh(mesh):
        batch = put_batch(mesh, BATCH, tiny_batch(factory.model))
        state = factory.create(0, batch, factory.abstract(mesh, batch))
        for micro_batches in (1, 2):
            compiled = _step(factory, micro_batches).lower(state, FROZEN, batch).compile()
            found = count_collectives(compiled.as_text())
            assert found.get("all-gather", 0) >= 1 and "all-reduce" in found
            assert "all-to-all" not in found and "collective-permute" not in found
