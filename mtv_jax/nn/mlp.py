# SPDX-License-Identifier: Apache-2.0
"""The two-layer perceptron of a transformer block; GELU is the tanh approximation."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class Mlp(nn.Module):
    """Dense, GELU, Dense back to the input's width."""

    mlp_dim: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(
                features,
                kernel_init=nn.initializers.xavier_uniform(),
                bias_init=nn.initializers.normal(1e-6),
                dtype=self.dtype,
                name=name,
            )

        hidden = nn.gelu(dense(self.mlp_dim, "fc1")(x), approximate=True)
        return dense(x.shape[-1], "fc2")(hidden)
