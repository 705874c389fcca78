# SPDX-License-Identifier: Apache-2.0
"""SigLIP's image tower: a ViT (arXiv 2010.11929) without class token, pooled by MAP.

Patches → mask replacement → + position embedding → patch dropping → blocks → norm → pool.
"""

import math
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtv_jax.core.passes import Features, Wants
from mtv_jax.models.tower import Tower, fold, unfold
from mtv_jax.nn.map_pool import MapPool
from mtv_jax.nn.patch_embed import PatchEmbed
from mtv_jax.nn.pos_embed import position_init, resample_grid

MaskMode = Literal["replace", "drop"]
Pooling = Literal["map", "mean"]


class ImageTower(Tower):
    """Pixels to patch tokens and a pooled vector.

    Attributes:
        patch_size: side of a patch in pixels.
        base_grid: patches per side at which the position embedding is learned; other grids read
            it resampled.
        pooling: "map" attends with a learned probe, "mean" averages the tokens.
        has_mask_token: whether there is a token to put in place of masked patches.
    """

    patch_size: int
    base_grid: int
    pooling: Pooling = "map"
    has_mask_token: bool = False

    def setup(self) -> None:
        super().setup()
        width = self.size.embed_dim
        self.patch_embed = PatchEmbed(width, self.patch_size, dtype=self.dtype)
        table_shape = (1, self.base_grid**2, width)
        self.pos_embed = self.param("pos_embed", position_init(width), table_shape)
        if self.has_mask_token:
            self.mask_token = self.param("mask_token", nn.initializers.zeros, (1, width))
        if self.pooling == "map":
            self.map_pool = MapPool(self.size.num_heads, self.size.mlp_dim, dtype=self.dtype)

    def __call__(
        self,
        pixels: Float[Array, "*b h w 3"],
        *,
        wants: Wants,
        patch_mask: Bool[Array, "*b n"] | None = None,
        mask_mode: MaskMode = "replace",
        num_kept: int | None = None,
        attn_mask: Bool[Array, "*b n n"] | None = None,
    ) -> Features:
        """Runs the tower.

        Args:
            pixels: in [-1, 1]; any leading batch axes, sides that the patch size divides.
            wants: what to return.
            patch_mask: True at masked patches.
            mask_mode: "replace" puts the mask token before the position embedding is added;
                "drop" removes masked patches after it.
            num_kept: patches per image that "drop" leaves, static; each mask must leave as many.
            attn_mask: True where a patch (row) may attend (column).

        Raises:
            ValueError: a mask the tower cannot apply, shapes that do not fit, or an unknown tap.
        """
        lead, (height, width) = pixels.shape[:-3], pixels.shape[-3:-1]
        grid = (height // self.patch_size, width // self.patch_size)
        for name, mask, rank in (("patch_mask", patch_mask, 1), ("attn_mask", attn_mask, 2)):
            expected = (*lead, *[math.prod(grid)] * rank)
            if mask is not None and mask.shape != expected:
                raise ValueError(f"{name} of shape {mask.shape}, not {expected}")
        patch_mask = None if patch_mask is None else fold(patch_mask, lead)
        attn_mask = None if attn_mask is None else fold(attn_mask, lead)
        x = self.patch_embed(fold(pixels, lead).astype(self.dtype))
        if patch_mask is not None and mask_mode == "replace":
            x = self._replace(x, patch_mask)
        base = (self.base_grid, self.base_grid)
        x = (x + resample_grid(self.pos_embed, base, grid)).astype(self.dtype)
        if patch_mask is not None and mask_mode == "drop":
            if attn_mask is not None or not num_kept:
                raise ValueError("dropping patches needs num_kept and takes no attn_mask")
            x = drop_patches(x, patch_mask, num_kept)
        return unfold(self.features(x, wants, attn_mask), lead)

    def pool(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b d"]:
        if self.pooling == "map":
            return self.map_pool(tokens)
        return jnp.mean(tokens.astype(jnp.float32), axis=1)

    def _replace(
        self, x: Float[Array, "b n d"], patch_mask: Bool[Array, "b n"]
    ) -> Float[Array, "b n d"]:
        if not self.has_mask_token:
            raise ValueError("this tower has no mask token; build it with has_mask_token=True")
        return jnp.where(patch_mask[..., None], self.mask_token.astype(x.dtype), x)


def drop_patches(
    x: Float[Array, "b n d"], patch_mask: Bool[Array, "b n"], num_kept: int
) -> Float[Array, "b k d"]:
    """The `num_kept` unmasked tokens of each image, in their order."""
    kept = jnp.argsort(patch_mask, axis=1, stable=True)[:, :num_kept]
    return jnp.take_along_axis(x, kept[..., None], axis=1)
