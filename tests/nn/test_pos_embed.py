# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.nn.pos_embed import resample_grid


@pytest.mark.parametrize("base", [(14, 14), (16, 16)])
@pytest.mark.parametrize("grid", [(6, 6), (36, 36), (26, 34)])
def test_equals_unantialiased_half_pixel_bicubic_resizing(base, grid):
    table = jax.random.normal(jax.random.key(0), (1, base[0] * base[1], 8))
    expected = jax.image.resize(table.reshape(*base, 8), (*grid, 8), "cubic", antialias=False)
    resampled = resample_grid(table, base, grid)
    np.testing.assert_allclose(resampled[0], expected.reshape(-1, 8), atol=2e-5)


def test_the_native_grid_is_the_parameter_itself():
    table = jax.random.normal(jax.random.key(0), (1, 9, 4))
    assert resample_grid(table, (3, 3), (3, 3)) is table


def test_rows_and_columns_are_not_confused():
    table = (jnp.arange(4.0)[:, None] * jnp.ones(4)).reshape(1, 16, 1)  # the row index
    resampled = resample_grid(table, (4, 4), (8, 2)).reshape(8, 2)
    assert np.all(np.diff(resampled[:, 0]) > 0)
    np.testing.assert_allclose(resampled[:, 0], resampled[:, 1], atol=1e-6)


def test_gradients_reach_the_parameter():
    table = jnp.ones((1, 16, 2))
    gradient = jax.grad(lambda t: resample_grid(t, (4, 4), (2, 3)).sum())(table)
    np.testing.assert_allclose(gradient.sum(), 2 * 3 * 2, rtol=1e-5)
