# SPDX-License-Identifier: Apache-2.0
"""Multi-head attention with biases everywhere, as in ViT (arXiv 2010.11929).

The softmax runs in float32 whatever the compute dtype is.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

AttnImpl = Literal["auto", "xla", "cudnn"]


def resolve_impl(impl: AttnImpl, dtype: DTypeLike, *, masked: bool) -> Literal["xla", "cudnn"]:
    """The kernel behind "auto": cuDNN on a GPU in bfloat16 without a mask, else XLA.

    cuDNN refuses float32, and odd token counts once a mask makes it take a bias.
    """
    if impl != "auto":
        return impl
    fused = jax.default_backend() == "gpu" and jnp.dtype(dtype) == jnp.bfloat16 and not masked
    return "cudnn" if fused else "xla"


class Attention(nn.Module):
    """Attention of `queries` over `context`, heads of equal width.

    Attributes:
        num_heads: divides the embed dim.
        dtype: of the projections and of the result; parameters are float32.
        impl: which kernel computes it.
    """

    num_heads: int
    dtype: DTypeLike = jnp.float32
    impl: AttnImpl = "auto"

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "b t d"],
        context: Float[Array, "b s d"],
        attn_mask: Bool[Array, "b t s"] | None = None,
    ) -> Float[Array, "b t d"]:
        """Attends where `attn_mask` is True, everywhere without one."""
        embed_dim = queries.shape[-1]
        heads = (self.num_heads, embed_dim // self.num_heads)

        def project(x: Float[Array, "b t d"], name: str) -> Float[Array, "b t h e"]:
            return nn.DenseGeneral(
                heads, kernel_init=nn.initializers.xavier_uniform(), dtype=self.dtype, name=name
            )(x)

        attended = jax.nn.dot_product_attention(
            project(queries, "query"),
            project(context, "key"),
            project(context, "value"),
            mask=None if attn_mask is None else attn_mask[:, None],
            implementation=resolve_impl(self.impl, self.dtype, masked=attn_mask is not None),
        )
        return nn.DenseGeneral(
            embed_dim,
            axis=(-2, -1),
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=self.dtype,
            name="out",
        )(attended)
