# SPDX-License-Identifier: Apache-2.0
"""Boxes to region vectors, read from an image's patch tokens (MTV section 4.3 and appendix A.2).

One transformer layer whose only output is that of a learned query o. As printed in MTV it runs over
[o; l; z*]: the query of o cannot see the box l and spreads over the patches in the same way for
every box ("literal", kept for comparison). "fused" puts the box into the query:

    q = W_q LN(o + l),   k_j = W_k (LN(z_j) + E_j),   v_j = W_v LN(z_j)
    r = o + W_o MHA(q, k, v),   e = r + MLP(LN(r))

l encodes both corners and E the centres of the patches at the same frequencies, so that products of
queries and keys can express offsets. Keys and values of the patches do not depend on the box: they
are made once per image, which equals a layer per region.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mtv_jax.core.errors import UserError
from mtv_jax.nn.mlp import Mlp

Reading = Literal["fused", "literal"]


class Prompter(nn.Module):
    """Patch tokens and boxes to one float32 vector per box, not normalised.

    Attributes:
        num_heads: attention heads.
        mlp_dim: width of the MLP.
        reading: how a box enters, see above.
        dtype: of the projections and the MLP.
    """

    num_heads: int
    mlp_dim: int
    reading: Reading = "fused"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "b n d"], boxes: Float[Array, "b r 4"], *, grid: int
    ) -> Float[Array, "b r d"]:
        """Reads regions.

        Args:
            tokens: the last block's output before the final norm; d is a multiple of 8.
            boxes: corners in [0, 1] of the view.
            grid: patches per side.
        """
        dim = tokens.shape[-1]
        if dim % self.num_heads or dim % 8:
            raise UserError(
                f"a prompter of {self.num_heads} heads over tokens {dim} wide: the heads, and 8, "
                "should divide the width; set objectives.grounding.num_heads to the tower's"
            )
        query = self.param("query", nn.initializers.normal(0.02), (dim,))
        corners = boxes[..., :2], boxes[..., 2:]
        norm = _norm("norm_context")
        values = norm(tokens)
        if self.reading == "fused":
            code = [encode_points(corner, grid, dim // 2) for corner in corners]
            asked = _norm("norm_query")(query + jnp.concatenate(code, axis=-1))
            keys = values + jnp.tile(encode_points(_patch_centres(grid), grid, dim // 2), 2)
            beside = None
        else:
            asked = jnp.broadcast_to(norm(query), (*boxes.shape[:2], dim))
            keys = values
            code = [norm(encode_points(corner, grid, dim)) for corner in corners]
            beside = jnp.stack([asked, *code], axis=2)
        attention = RegionAttention(self.num_heads, dtype=self.dtype, name="attn")
        region = query + attention(asked, keys, values, beside).astype(jnp.float32)
        residual = Mlp(self.mlp_dim, dtype=self.dtype, name="mlp")(_norm("norm_mlp")(region))
        return region + residual.astype(jnp.float32)


class RegionAttention(nn.Module):
    """Regions over the patches of their image, and over tokens of their own.

    Keys and values of patches differ in what is added to the keys. The weights over patches and
    own tokens, [b, h, r, n + o], are sown as the intermediate "weights".
    """

    num_heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        asked: Float[Array, "b r d"],
        keys: Float[Array, "b n d"],
        values: Float[Array, "b n d"],
        own: Float[Array, "b r o d"] | None = None,
    ) -> Float[Array, "b r d"]:
        """Attends; `own` tokens are keys and values of their region only."""
        dim = asked.shape[-1]
        init, width = nn.initializers.xavier_uniform(), dim // self.num_heads
        query, key, value = (
            nn.DenseGeneral((self.num_heads, width), kernel_init=init, dtype=self.dtype, name=name)
            for name in ("query", "key", "value")
        )
        out = nn.DenseGeneral(dim, axis=(-2, -1), kernel_init=init, dtype=self.dtype, name="out")
        asked = query(asked) / jnp.sqrt(width).astype(self.dtype)
        logits = _dot("brhe,bnhe->bhrn", asked, key(keys))
        if own is not None:
            beside = _dot("brhe,brohe->bhro", asked, key(own))
            logits = jnp.concatenate([logits, beside], axis=-1)
        weights = jax.nn.softmax(logits, axis=-1)
        self.sow("intermediates", "weights", weights)
        weights = weights.astype(self.dtype)
        patches = keys.shape[1]
        attended = _dot("bhrn,bnhe->brhe", weights[..., :patches], value(values))
        if own is not None:
            attended += _dot("bhro,brohe->brhe", weights[..., patches:], value(own))
        return out(attended.astype(self.dtype))


def encode_points(points: Float[Array, "*r 2"], grid: int, dim: int) -> Float[Array, "*r c"]:
    """Fixed sine-cosine code of points in [0, 1], `dim` wide: sin x, cos x, sin y, cos y.

    In units of patches, at frequencies 10000^(-k / (dim/4 - 1)).
    """
    count = dim // 4
    frequencies = 10_000.0 ** -(jnp.arange(count) / max(count - 1, 1))
    x, y = jnp.moveaxis(grid * points[..., None] - 0.5, -2, 0) * frequencies
    return jnp.concatenate([jnp.sin(x), jnp.cos(x), jnp.sin(y), jnp.cos(y)], axis=-1)


def _patch_centres(grid: int) -> Float[Array, "n 2"]:
    """(x, y) in [0, 1], row by row."""
    centres = (jnp.arange(grid) + 0.5) / grid
    y, x = jnp.meshgrid(centres, centres, indexing="ij")
    return jnp.stack([x, y], axis=-1).reshape(-1, 2)


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-6, dtype=jnp.float32, name=name)


def _dot(pattern: str, x: Array, y: Array) -> Array:
    return jnp.einsum(pattern, x, y, preferred_element_type=jnp.float32)
