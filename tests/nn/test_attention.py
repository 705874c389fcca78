# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.nn.attention import Attention, resolve_impl


@pytest.mark.parametrize(
    ("backend", "dtype", "masked", "expected"),
    [
        ("cpu", jnp.bfloat16, False, "xla"),
        ("tpu", jnp.bfloat16, False, "xla"),
        ("gpu", jnp.bfloat16, False, "cudnn"),
        ("gpu", jnp.float32, False, "xla"),
        ("gpu", jnp.bfloat16, True, "xla"),
    ],
)
def test_auto_takes_cudnn_where_it_works(monkeypatch, backend, dtype, masked, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert resolve_impl("auto", dtype, masked=masked) == expected


def test_an_explicit_implementation_is_kept(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert resolve_impl("xla", jnp.bfloat16, masked=False) == "xla"
    assert resolve_impl("cudnn", jnp.float32, masked=True) == "cudnn"


def test_masked_context_has_no_influence():
    attention = Attention(num_heads=2)
    x = jax.random.normal(jax.random.key(0), (1, 4, 8))
    params = attention.init(jax.random.key(1), x, x)
    mask = jnp.array([[[True, True, False, True]] * 4])
    changed = x.at[:, 2].add(10.0)
    masked = attention.apply(params, x, x, mask)
    np.testing.assert_allclose(masked, attention.apply(params, x, changed, mask), atol=1e-6)
    assert not np.allclose(masked, attention.apply(params, x, x), atol=1e-3)


def test_each_head_is_initialised_by_the_fans_of_the_whole_projection():
    attention = Attention(num_heads=8)
    x = jnp.zeros((1, 1, 64))
    params = attention.init(jax.random.key(0), x, x)["params"]
    limit = (6 / (64 + 64)) ** 0.5
    for name in ("query", "key", "value", "out"):
        assert 0.99 * limit < float(jnp.abs(params[name]["kernel"]).max()) <= limit
