# SPDX-License-Identifier: Apache-2.0
"""Tests of self-distillation and of what both prototype objectives share."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core.errors import UserError
from mtv_jax.objectives.base import Context, Outputs
from mtv_jax.objectives.self_distill import SelfDistill
from mtv_jax.training.model import Weights
from tests.arch.systems import FROZEN, tiny_batch, tiny_model, tiny_params

NAME = "self_distill"


def _teacher(shift: float = 0.05):
    return jax.tree.map(lambda x: x + shift, tiny_params((NAME,)))


def _losses(batch=None, slots=None, ema=None):
    model = tiny_model((NAME,))
    weights = Weights(params=tiny_params((NAME,)), ema=ema or _teacher(), frozen=FROZEN)
    batch = tiny_batch(model) if batch is None else batch
    step = jnp.zeros((), jnp.int32)
    return jax.jit(lambda b: model.losses(weights, slots or model.init_slots(), b, step))(batch)[
        NAME
    ]


def _scores(ema):
    """Teacher's and students' scores [b, k] and [b, m, k], of the towers run by hand."""
    model, params = tiny_model((NAME,)), tiny_params((NAME,))
    objective = model.objectives[0]
    seen = {}

    class Spy(SelfDistill):
        def project(self, ctx: Context) -> Outputs:
            pairs = self.pairs(ctx)
            student = ctx.student[self._head](pairs.students)
            teacher = ctx.ema[self._head](pairs.teachers)
            seen["student"] = student.prototypes.scores(student.vectors, "float32")[:, 0]
            seen["teacher"] = teacher.prototypes.scores(teacher.vectors, "float32")[:, 0]
            return super().project(ctx)

    spy = Spy(**{f.name: getattr(objective, f.name) for f in dataclasses.fields(objective)})
    model = dataclasses.replace(model, objectives=(spy,))
    weights = Weights(params=params, ema=ema, frozen=FROZEN)
    batch = jax.tree.map(jnp.asarray, tiny_batch(model))
    model.losses(weights, model.init_slots(), batch, jnp.zeros((), jnp.int32))
    return jax.tree.map(np.asarray, seen)


def _log_softmax(x):
    x = x.astype(np.float64)
    return (
        x
        - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - x.max(-1, keepdims=True)
    )


def test_8_cross_entropy_is_divergence_plus_entropy():
    """And all three are those of the equations, in float64."""
    out, scores = _losses(), _scores(_teacher())
    log_q = _log_softmax(scores["teacher"] / 0.04)
    log_p = _log_softmax(scores["student"] / 0.1)
    q = np.exp(log_q)
    entropy = -(q * log_q).sum(-1).mean()
    divergence = (q[:, None] * (log_q[:, None] - log_p)).sum(-1).mean()
    assert divergence > 0.01 and entropy > 0.01
    np.testing.assert_allclose(out.metrics["teacher_entropy"], entropy, rtol=1e-4)
    np.testing.assert_allclose(out.metrics["kl"], divergence, rtol=1e-3)
    np.testing.assert_allclose(out.loss, divergence + entropy, rtol=1e-5)
    share = entropy / math.log(32)
    np.testing.assert_allclose(out.metrics["entropy_share"], share, rtol=1e-4)


def test_9_centre_after_one_step():
    """A tenth of the mean raw score of the teacher, over valid samples; the loss used the old."""
    batch = tiny_batch(tiny_model((NAME,)))
    batch["valid"]["image"][3] = False
    out, scores = _losses(batch), _scores(_teacher())["teacher"]
    expected = 0.1 * np.delete(scores, 3, axis=0).mean(axis=0)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(out.slots["centre"], expected, rtol=1e-4, atol=1e-6)


def test_the_centre_is_taken_off_the_teacher_and_kept_at_nine_tenths():
    centre = jnp.linspace(-1.0, 1.0, 32)
    out, scores = _losses(slots={NAME: {"centre": centre}}), _scores(_teacher())
    log_q = _log_softmax((scores["teacher"] - np.asarray(centre)) / 0.04)
    expected = -(np.exp(log_q) * log_q).sum(-1).mean()
    np.testing.assert_allclose(out.metrics["teacher_entropy"], expected, rtol=1e-4)
    moved = 0.9 * np.asarray(centre) + 0.1 * scores["teacher"].mean(axis=0)
    np.testing.assert_allclose(out.slots["centre"], moved, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"teacher_temps": (0.0, 0.07)}, {"centre_momentum": 1.5}])
def test_temperatures_and_momentum_have_bounds(wrong):
    with pytest.raises(UserError, match="teacher_temps"):
        SelfDistill(name=NAME, **wrong)


def test_without_a_teacher_it_says_which_rule_is_missing():
    model, params = tiny_model((NAME,)), tiny_params((NAME,))
    batch = jax.tree.map(jnp.asarray, tiny_batch(model))
    for ema, what in (({}, "backbone/image"), ({"backbone": params["backbone"]}, "heads/self_d")):
        weights = Weights(params=params, ema=ema, frozen=FROZEN)
        with pytest.raises(UserError, match=f"ema.rules should select {what}"):
            model.losses(weights, model.init_slots(), batch, jnp.zeros((), jnp.int32))


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0.04), (0.15, 0.055), (0.3, 0.07), (1.0, 0.07)]
)
def test_teacher_temperature_rises_and_stays(progress, expected):
    objective = SelfDistill(name=NAME, prototypes=8)
    outputs = Outputs(
        rows={"loss": jnp.ones(2), "entropy": jnp.ones(2), "valid": jnp.ones(2, bool)},
        sums={"teacher_scores": jnp.zeros(8)},
    )
    ctx = Context(
        student={},
        ema={},
        feats={},
        batch=None,  # type: ignore[arg-type] - not read
        slots=objective.slots(),
        step=jnp.zeros(()),
        progress=jnp.asarray(progress),
    )
    temperature = objective.loss(outputs, ctx).metrics["teacher_temp"]
    np.testing.assert_allclose(temperature, expected, rtol=1e-6)
