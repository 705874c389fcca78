# SPDX-License-Identifier: Apache-2.0
"""Multi-head attention pooling (MAP) of SigLIP (arXiv 2303.15343).

A learned probe attends over the tokens, then v = a + MLP(LN(a)): the probe has no residual. The
residual sum and the normalisation run in float32.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mtv_jax.nn.attention import Attention
from mtv_jax.nn.mlp import Mlp


class MapPool(nn.Module):
    """Tokens to one float32 vector."""

    num_heads: int
    mlp_dim: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b d"]:
        batch, _, embed_dim = tokens.shape
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, embed_dim))
        queries = jnp.broadcast_to(probe, (batch, 1, embed_dim))
        # One query per image: nothing for a fused kernel to win.
        attention = Attention(self.num_heads, dtype=self.dtype, impl="xla", name="attn")
        pooled = attention(queries, tokens).astype(jnp.float32)
        hidden = nn.LayerNorm(epsilon=1e-6, dtype=jnp.float32, name="norm")(pooled)
        residual = Mlp(self.mlp_dim, dtype=self.dtype, name="mlp")(hidden)
        return (pooled + residual.astype(jnp.float32))[:, 0]
