# SPDX-License-Identifier: Apache-2.0
"""The depth loss: invariances, edge cases, and a plain formula."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core.fields import DEPTH_AGREEMENT
from mtv_jax.objectives.depth import Depth, depth_terms, deviation, normalized


def _maps(seed: int, size: int = 16, batch: int = 3) -> jnp.ndarray:
    """Smooth random maps about [0, 1], no two pixels alike."""
    smooth, rough = jax.random.split(jax.random.key(seed))
    coarse = jax.random.uniform(smooth, (batch, 4, 4))
    noise = 0.01 * jax.random.normal(rough, (batch, size, size))
    return jax.image.resize(coarse, (batch, size, size), "bilinear") + noise


def _loss(predicted, label, kept=0.9):
    terms = depth_terms(predicted, label, kept=kept)
    return jnp.mean(terms["trimmed"] + 2.0 * terms["gradient"])


def test_equals_the_formula():
    predicted, label = np.asarray(_maps(0)), np.asarray(_maps(1))
    terms = depth_terms(jnp.asarray(predicted), jnp.asarray(label), kept=0.9)
    for i in range(3):
        stars = []
        for d in (predicted[i], label[i]):
            centred = d - np.median(d)
            stars.append(centred / np.abs(centred).mean())
        delta = stars[0] - stars[1]
        residual = np.sort(np.abs(delta).ravel())
        trimmed = residual[: int(0.9 * residual.size)].sum() / (2 * residual.size)
        gradient = 0.0
        for stride in (1, 2, 4, 8):
            d = delta[::stride, ::stride]
            total = np.abs(np.diff(d, axis=0)).sum() + np.abs(np.diff(d, axis=1)).sum()
            gradient += total / d.size
        np.testing.assert_allclose(terms["trimmed"][i], trimmed, rtol=1e-5)
        np.testing.assert_allclose(terms["gradient"][i], gradient, rtol=1e-5)


def test_19_affine_maps_of_the_prediction_change_nothing():
    predicted, label = _maps(0), _maps(1)
    np.testing.assert_allclose(
        _loss(7.0 * predicted - 3.0, label), _loss(predicted, label), rtol=1e-4
    )
    assert float(_loss(0.25 * label + 9.0, label)) < 1e-4
    assert float(_loss(-label, label)) > 0.5, "near and far are not the same"


def test_20_the_largest_tenth_of_the_residuals_is_left_out():
    label = _maps(1, batch=1)
    predicted = _maps(0, batch=1)
    residual = jnp.abs(normalized(predicted) - normalized(label)).ravel()
    for kept in (0.9, 0.5, 1.0):
        count = int(kept * residual.size)
        expected = jnp.sort(residual)[:count].sum() / (2 * residual.size)
        terms = depth_terms(predicted, label, kept=kept)
        np.testing.assert_allclose(terms["trimmed"][0], expected, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_21_a_constant_prediction_has_a_finite_loss_and_gradient(value):
    constant = jnp.full((3, 16, 16), value)
    loss, gradient = jax.value_and_grad(_loss)(constant, _maps(1))
    assert bool(jnp.isfinite(loss)) and bool(jnp.isfinite(gradient).all())


def test_constant_labels_are_told_apart():
    label = _maps(1).at[1].set(0.4)
    least = Depth(name="depth").least_spread
    np.testing.assert_array_equal(deviation(label) >= least, [True, False, True])


def test_the_gradient_pulls_towards_the_label():
    """Plain gradient descent on the pixels reaches the label up to an affine map."""
    label, start = _maps(1, batch=1), _maps(0, batch=1)
    step = jax.jit(lambda x: x - 2.0 * jax.grad(_loss)(x, label))
    x = start
    for _ in range(300):
        x = step(x)
    assert float(_loss(x, label)) < 0.3 * float(_loss(start, label))


@pytest.mark.parametrize(("least", "taken"), [(-1.0, [1, 1, 1, 0]), (0.5, [1, 0, 0, 0])])
def test_labels_that_their_expert_doubts(least, taken):
    """The second agrees too little, the third was not compared, the fourth has no map."""
    objective = Depth(name="depth", least_agreement=least)
    assert (DEPTH_AGREEMENT in objective.fields()) == (least > -1)
    valid = {
        "image": np.ones(4, bool),
        "depth": np.asarray([True, True, True, False]),
        "depth_agreement": np.asarray([True, True, False, True]),
    }
    agreement = {"depth_agreement": jnp.asarray([0.5, 0.49, jnp.nan, 0.9])}
    batch = types.SimpleNamespace(valid=valid, columns=agreement)
    np.testing.assert_array_equal(objective.trusted(batch), np.asarray(taken, bool))
