# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

from mtv_jax.nn.mlp import Mlp


def test_gelu_is_the_tanh_approximation():
    x = jnp.linspace(-4, 4, 30).reshape(-1, 1)
    ones = {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}
    out = Mlp(mlp_dim=1).apply({"params": {"fc1": ones, "fc2": ones}}, x)
    tanh = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(out, tanh, atol=1e-6)
    assert np.abs(out - jax.nn.gelu(x, approximate=False)).max() > 1e-4
