# SPDX-License-Identifier: Apache-2.0
"""Tests of mtv_jax.core.masking and core.schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core.errors import UserError
from mtv_jax.core.masking import masked_mean, zero_invalid
from mtv_jax.core.schedules import as_schedule, warmup_cosine


def test_a_nan_that_is_masked_reaches_neither_value_nor_gradient():
    x = jnp.asarray([1.0, jnp.nan, 3.0])
    valid = jnp.asarray([True, False, True])

    def mean(x):
        return masked_mean(jnp.square(zero_invalid(x, valid)), valid)

    assert float(mean(x)) == 5.0
    np.testing.assert_array_equal(jax.grad(mean)(x), [1.0, 0.0, 3.0])


def test_nothing_valid_is_zero_with_zero_gradient():
    nothing = jnp.zeros(3, bool)
    assert float(masked_mean(jnp.full(3, jnp.nan), nothing)) == 0.0
    np.testing.assert_array_equal(jax.grad(lambda x: masked_mean(x, nothing))(jnp.ones(3)), 0.0)


def test_warmup_then_cosine_to_zero():
    rate = warmup_cosine(5e-4, 1000, 48_828)
    np.testing.assert_allclose(float(rate(0)), 5e-7, rtol=1e-6)
    np.testing.assert_allclose(float(rate(999)), 5e-4, rtol=1e-6)
    np.testing.assert_allclose(float(rate((1000 + 48_828) / 2)), 2.5e-4, rtol=1e-4)
    quarter = 1000 + (48_828 - 1000) // 4
    np.testing.assert_allclose(float(rate(quarter)), 5e-4 * (1 + 0.5**0.5) / 2, rtol=1e-4)
    assert float(rate(48_828)) < 1e-12
    with pytest.raises(UserError, match=r"must exceed optim\.warmup_steps"):
        warmup_cosine(1.0, 10, 10)


def test_weights_may_be_points_over_progress():
    weight = as_schedule({0.0: 0.0, 0.5: 2.0})
    assert [float(weight(p)) for p in (0.0, 0.25, 0.5, 1.0)] == [0.0, 1.0, 2.0, 2.0]
    assert float(as_schedule(3.0)(0.7)) == 3.0
