# SPDX-License-Identifier: Apache-2.0
"""Ranks without a sort equal those of a sort, in value and in gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core.selection import median, order_statistic


def _values(n: int) -> np.ndarray:
    generator = np.random.default_rng(n)
    scale = 10.0 ** generator.integers(-30, 30, (3, n))
    values = (generator.normal(size=(3, n)) * scale).astype(np.float32)
    values[1, : n // 2] = 0.5  # ties
    values[2, : n // 3] = -0.0
    return values


@pytest.mark.parametrize("n", [1, 2, 3, 10, 257])
def test_every_rank_is_that_of_a_sort(n):
    values = _values(n)
    expected = np.sort(values, axis=-1)
    for rank in range(n):
        np.testing.assert_array_equal(order_statistic(jnp.asarray(values), rank), expected[:, rank])


@pytest.mark.parametrize("n", [1, 2, 7, 10])
def test_median_has_the_value_and_gradient_of_the_plain_one(n):
    values = jnp.asarray(np.random.default_rng(n).normal(size=n), jnp.float32)
    np.testing.assert_allclose(median(values), np.median(values), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(median)(values), jax.grad(jnp.median)(values), atol=1e-6)


def test_ties_share_the_gradient():
    values = jnp.asarray([3.0, 1.0, 1.0, 0.0, 1.0])
    gradient = jax.grad(lambda x: order_statistic(x, 2))(values)
    np.testing.assert_allclose(gradient, [0, 1 / 3, 1 / 3, 0, 1 / 3], rtol=1e-6)


def test_a_rank_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="rank 4 of 4"):
        order_statistic(jnp.zeros(4), 4)
