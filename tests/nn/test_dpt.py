# SPDX-License-Identifier: Apache-2.0
"""The dense head: its size, its shapes, and each part against a plain formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.nn import dpt
from mtv_jax.nn.dpt import DPT, ResidualConvs, Unfold

SMALL = DPT(features=8, channels=(4, 6, 8, 10))


def _taps(grid: int, width: int, batch: int = 2):
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(key, (batch, grid * grid, width)) for key in keys]


@pytest.mark.parametrize(
    ("width", "head", "total"),
    [
        (768, DPT(), 10_595_137),
        (1024, DPT(features=256, channels=(256, 512, 1024, 1024)), 29_766_849),
    ],
)
def test_parameters_are_those_of_the_published_head(width, head, total):
    init = functools.partial(head.init, grid=14, size=224)
    shapes = jax.eval_shape(init, jax.random.key(0), _taps(14, width, batch=1))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == total


@pytest.mark.parametrize(("grid", "size"), [(8, 64), (7, 56), (1, 8), (6, 100)])
def test_any_grid_gives_a_map_of_the_asked_size(grid, size):
    taps = _taps(grid, 12)
    params = SMALL.init(jax.random.key(1), taps, grid=grid, size=size)
    out = SMALL.apply(params, taps, grid=grid, size=size)
    assert out.shape == (2, size, size) and out.dtype == jnp.float32
    assert float(jnp.std(out)) > 0


def test_23_samples_do_not_see_each_other_and_everything_is_float32():
    taps = _taps(4, 12)
    params = SMALL.init(jax.random.key(1), taps, grid=4, size=32)
    both = SMALL.apply(params, taps, grid=4, size=32)
    alone = SMALL.apply(params, [tap[1:] for tap in taps], grid=4, size=32)
    np.testing.assert_allclose(both[1:], alone, atol=1e-5)
    rounded = [tap.astype(jnp.bfloat16) for tap in taps]
    low, state = SMALL.apply(params, rounded, grid=4, size=32, capture_intermediates=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    assert 1e-5 < float(jnp.abs(low - both).max()) < 0.01, "float32 taps are not rounded"
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_unfold_is_a_transposed_convolution():
    x = jax.random.normal(jax.random.key(0), (1, 2, 3, 2))
    layer = Unfold(factor=2)
    params = layer.init(jax.random.key(1), x)
    kernel = params["params"]["kernel"]
    expected = np.zeros((1, 4, 6, 2))
    for row in range(2):
        for column in range(3):
            block = np.einsum("i,iklo->klo", x[0, row, column], kernel)
            expected[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = block
    np.testing.assert_allclose(layer.apply(params, x), expected, atol=1e-5)
    assert float(jnp.abs(kernel).max()) <= (2 * 2 * 2) ** -0.5


def test_residual_convs_add_to_their_input():
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 3))
    params = jax.tree.map(jnp.zeros_like, ResidualConvs().init(jax.random.key(1), x))
    np.testing.assert_array_equal(ResidualConvs().apply(params, x), x)


def test_22_the_last_convolution_of_a_fusion_commutes_with_upsampling():
    """Why it may run first: both are linear, one over channels, the other over pixels."""
    x = jax.random.normal(jax.random.key(0), (1, 5, 5, 4))
    conv = dpt._conv1(6, "conv")
    params = conv.init(jax.random.key(1), x)
    before = dpt._upsample(conv.apply(params, x), 10, 10)
    after = conv.apply(params, dpt._upsample(x, 10, 10))
    np.testing.assert_allclose(before, after, atol=1e-5)


def test_upsampling_is_half_pixel():
    ramp = jnp.arange(4.0).reshape(1, 4, 1, 1)
    out = dpt._upsample(ramp, 8, 1)[0, :, 0, 0]
    np.testing.assert_allclose(out, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6)
