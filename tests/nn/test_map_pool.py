# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

from mtv_jax.nn.map_pool import MapPool

POOL = MapPool(num_heads=2, mlp_dim=16)
TOKENS = jax.random.normal(jax.random.key(0), (3, 5, 8))


def test_the_probe_has_no_residual():
    params = POOL.init(jax.random.key(1), TOKENS)["params"]
    params["attn"]["out"] = jax.tree.map(jnp.zeros_like, params["attn"]["out"])
    moved = {**params, "probe": params["probe"] + 3.0}
    pooled = POOL.apply({"params": params}, TOKENS)
    np.testing.assert_array_equal(pooled, POOL.apply({"params": moved}, TOKENS))


def test_the_order_of_tokens_does_not_matter():
    params = POOL.init(jax.random.key(1), TOKENS)
    flipped = POOL.apply(params, TOKENS[:, ::-1])
    np.testing.assert_allclose(POOL.apply(params, TOKENS), flipped, atol=1e-5)


def test_the_residual_sum_is_float32_in_bfloat16():
    pool = MapPool(num_heads=2, mlp_dim=16, dtype=jnp.bfloat16)
    params = pool.init(jax.random.key(1), TOKENS)
    pooled = pool.apply(params, TOKENS.astype(jnp.bfloat16))
    assert pooled.dtype == jnp.float32
    rounded = pooled.astype(jnp.bfloat16).astype(jnp.float32)
    assert not np.array_equal(pooled, rounded), "the sum was rounded to bfloat16"
