# SPDX-License-Identifier: Apache-2.0
"""Pixels to patch tokens: a convolution whose stride is its kernel size."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class PatchEmbed(nn.Module):
    """One linear map per square patch, patches in row-major order.

    Raises:
        ValueError: a side of the image that the patch size does not divide.
    """

    embed_dim: int
    patch_size: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b n d"]:
        batch, height, width, _ = pixels.shape
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"images of {height}x{width} pixels do not divide into patches of {self.patch_size}"
            )
        window = (self.patch_size, self.patch_size)
        conv = nn.Conv(
            self.embed_dim, window, strides=window, padding="VALID", dtype=self.dtype, name="conv"
        )
        return conv(pixels).reshape(batch, -1, self.embed_dim)
