# SPDX-License-Identifier: Apache-2.0
"""How objectives pull at the tower, against one gradient at a time."""

import dataclasses
import functools
import itertools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.dist.mesh import MeshConfig, make_mesh, put_batch
from mtv_jax.objectives.koleo import KoLeo
from mtv_jax.training import interference as module
from mtv_jax.training.ema import EmaConfig
from mtv_jax.training.interference import Interference, make_interference
from mtv_jax.training.loop import Loop
from mtv_jax.training.model import Weights
from mtv_jax.training.optim import OptimConfig, Optimizer
from mtv_jax.training.state import StateFactory
from mtv_jax.training.step import make_train_step
from tests.arch.systems import BATCH, FROZEN, tiny_batch, tiny_model

NAMES = ("self_distill", "sigmoid_vl", "koleo")
ONE = make_mesh(MeshConfig(), jax.devices()[:1])


def _factory(model):
    teacher = EmaConfig(rules=(("backbone/image/.*|heads/.*_head/.*", True), (".*", False)))
    optimizer = Optimizer(OptimConfig(warmup_steps=0), 100)
    return StateFactory(model=model, optimizer=optimizer, ema=teacher, frozen=FROZEN)


@functools.cache
def _state(names=NAMES):
    model = tiny_model(names)
    return jax.jit(lambda: _factory(model).init(jax.random.key(0), tiny_batch(model)))()


def _measure(model, state, micro_batches=1):
    measure = jax.jit(make_interference(model, micro_batches=micro_batches))
    return {k: float(v) for k, v in measure(state, FROZEN, tiny_batch(model)).items()}


@functools.cache
def _measured():
    return _measure(tiny_model(NAMES), _state())


@functools.cache
def _gradients():
    """Weighted gradients on the tower in float64, by objective, and that of the total."""
    model, state = tiny_model(NAMES), _state()

    def losses(params, batch):
        weights = Weights(params=params, ema=state.ema, frozen=FROZEN)
        outs = model.losses(weights, state.slots, batch, state.step)
        weighted = {o.name: o.weight * outs[o.name].loss for o in model.objectives}
        return {**weighted, "total": model.total(outs, state.step)}

    def gradients(*inputs):
        return {k: jax.grad(lambda *x, k=k: losses(*x)[k])(*inputs) for k in (*NAMES, "total")}

    trees = jax.jit(gradients)(state.params, tiny_batch(model))
    towers = {name: tree["backbone"]["image"] for name, tree in trees.items()}
    return {
        name: np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(tower)])
        for name, tower in towers.items()
    }


def test_norms_and_cosines_are_those_of_separate_gradients():
    expected = _gradients()
    assert len(_measured()) == 3 + 3
    for name in NAMES:
        norm = np.linalg.norm(expected[name])
        np.testing.assert_allclose(_measured()[f"interference/norm/{name}"], norm, rtol=1e-5)
    for a, b in itertools.combinations(sorted(NAMES), 2):
        dot = expected[a] @ expected[b]
        cosine = dot / np.linalg.norm(expected[a]) / np.linalg.norm(expected[b])
        assert abs(cosine) > 0.01, "a cosine of nothing tests nothing"
        assert abs(_measured()[f"interference/cosine/{a}/{b}"] - cosine) < 2e-4


def test_together_they_make_up_the_total_gradient():
    """‖Σ g_i‖² = Σ_ij norm_i norm_j cosine_ij, and the sum is the gradient of the step's loss."""
    norms = {name: _measured()[f"interference/norm/{name}"] for name in NAMES}
    squared = sum(norm**2 for norm in norms.values())
    for a, b in itertools.combinations(sorted(NAMES), 2):
        squared += 2 * norms[a] * norms[b] * _measured()[f"interference/cosine/{a}/{b}"]
    np.testing.assert_allclose(squared**0.5, np.linalg.norm(_gradients()["total"]), rtol=1e-3)


def test_copies_agree_opposites_disagree_and_what_has_no_gradient_is_zero():
    koleo = KoLeo(name="koleo", weight=0.1, group_size=4)
    others = {
        "copy": 0.1,
        "stronger": 0.5,
        "opposed": -0.1,
        "off": 0.0,
        "later": {0.5: 0.0, 1.0: 1.0},
    }
    copies = (dataclasses.replace(koleo, name=name, weight=w) for name, w in others.items())
    model = dataclasses.replace(tiny_model(("koleo",)), objectives=(koleo, *copies))
    slots = {name: {} for name in ("koleo", *others)}
    state = dataclasses.replace(_state(("koleo",)), slots=slots)
    measured = _measure(model, state)

    def cosine(name):
        first, second = sorted(("koleo", name))
        return measured[f"interference/cosine/{first}/{second}"]

    expected = {"copy": 1, "stronger": 1, "opposed": -1, "off": 0, "later": 0}
    for name, value in expected.items():
        assert cosine(name) == pytest.approx(value, abs=1e-4), name
    assert abs(cosine("copy") - 1) < 1e-6, "rounding leaves the cosine of equals alone"
    norms = {name: measured[f"interference/norm/{name}"] for name in ("koleo", *others)}
    assert norms["stronger"] == pytest.approx(5 * norms["koleo"], rel=1e-5) and norms["koleo"] > 0
    assert norms["off"] == norms["later"] == 0.0
    assert len(measured) == 6 + 15 and np.isfinite(list(measured.values())).all()


def test_micro_batches_change_nothing():
    measured = _measure(tiny_model(NAMES), _state(), micro_batches=4)
    chex.assert_trees_all_close(measured, _measured(), rtol=1e-4, atol=1e-4)


def test_eight_devices_measure_what_one_does():
    model, mesh = tiny_model(NAMES), make_mesh(MeshConfig(data=2, fsdp=4))
    batch, factory = tiny_batch(model), _factory(model)
    with jax.set_mesh(mesh):
        state = factory.create(0, batch, factory.abstract(mesh, batch))
        measure = jax.jit(make_interference(model, micro_batches=2))
        measured = measure(state, FROZEN, put_batch(mesh, BATCH, batch))
    measured = {k: float(v) for k, v in measured.items()}
    chex.assert_trees_all_close(measured, _measured(), rtol=1e-4, atol=1e-4)


@dataclasses.dataclass
class Saver:
    """Keeps the last state in place of a folder."""

    state: object = None

    def save(self, step, state):
        self.state = jax.device_get(state)

    def wait(self): ...


@functools.cache
def _step():
    factory = _factory(tiny_model(("koleo",)))
    step = make_train_step(factory.model, factory.optimizer, factory.ema, micro_batches=1)
    return jax.jit(step, donate_argnums=0)


def _train(workdir, interference):
    """Five steps of KoLeo; the last state and the lines of metrics without rates."""
    model, saver = tiny_model(("koleo",)), Saver()
    (workdir / "logs").mkdir(parents=True)
    loop = Loop(
        workdir=workdir,
        mesh=ONE,
        step=_step(),
        frozen=jax.device_put(FROZEN),
        put=lambda local: put_batch(ONE, BATCH, local),
        total_steps=5,
        checkpoint_every=5,
        log_every=2,
        nonfinite="stop",
        max_skips=0,
        watchdog_seconds=0,
        evaluate=lambda state, number, poll: None,
        interference=interference,
        objectives=model.objectives,
    )
    state = jax.tree.map(jnp.copy, _state(("koleo",)))
    loop.run(state, (tiny_batch(model, k * BATCH) for k in itertools.count()), saver)
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    rates = ("images_per_s", "data_wait")
    return saver.state, [{k: v for k, v in x.items() if k not in rates} for x in lines]


def _interference(every):
    return Interference(tiny_model(("koleo",)), micro_batches=1, every=every, mesh=ONE)


def test_training_is_the_same_with_it_and_numbers_stand_in_the_line_of_their_step(tmp_path):
    plain, lines = _train(tmp_path / "plain", _interference(0))
    watched, more = _train(tmp_path / "watched", _interference(2))
    chex.assert_trees_all_equal(watched, plain)
    key = "interference/norm/koleo"
    assert [x["step"] for x in more if key in x] == [2, 4] and [x["step"] for x in more] == [
        1,
        2,
        4,
        5,
    ]
    assert [{k: v for k, v in x.items() if k != key} for x in more] == lines


def test_it_sees_the_state_that_the_step_is_about_to_change(tmp_path):
    """A line holds the mean over its interval, as of any metric."""
    _, lines = _train(tmp_path, lambda number, state, frozen, batch: {"seen": state.step + 0})
    assert [(x["step"], x["seen"]) for x in lines] == [(1, 0), (2, 1), (4, 2.5), (5, 4)]


def test_what_does_not_fit_is_left_out_and_training_goes_on(tmp_path, capsys, monkeypatch):
    state, _ = _train(tmp_path / "plain", _interference(0))
    held = sum(x.nbytes for x in jax.tree.leaves(_state(("koleo",))))
    monkeypatch.setattr(module.memory, "device_limit", lambda mesh: held)
    tight, lines = _train(tmp_path / "tight", _interference(2))
    chex.assert_trees_all_equal(tight, state)
    assert not any("interference" in key for line in lines for key in line)
    told = capsys.readouterr().err
    assert told.count("interference is not measured: with it, the step needs") == 1
    assert "set --config.log.interference_every=0" in told
