# SPDX-License-Identifier: Apache-2.0
"""Learned position embeddings, read on any grid.

Resampling is bicubic (Keys, a = -0.5), half-pixel centred, without antialiasing and without
DINOv2's 0.1 offset; weights that fall outside the grid are dropped and the others renormalised.
It is linear, so a constant matrix per axis is applied to the parameter: differentiable and free.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Grid = tuple[int, int]


@functools.cache
def resample_weights(size_in: int, size_out: int) -> np.ndarray:
    """[size_out, size_in] float32 matrix that resamples one axis; its rows sum to one."""
    centres = (np.arange(size_out) + 0.5) * (size_in / size_out)
    x = np.abs(centres[:, None] - (np.arange(size_in) + 0.5))
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    weights = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def resample_grid(table: Float[Array, "1 m d"], base: Grid, grid: Grid) -> Float[Array, "1 n d"]:
    """A table of `base` (rows, columns) positions, read on `grid`; float32."""
    if base == grid:
        return table
    resampled = jnp.einsum(
        "Hh,Ww,hwd->HWd",
        resample_weights(base[0], grid[0]),
        resample_weights(base[1], grid[1]),
        table.reshape(*base, -1),
        precision=jax.lax.Precision.HIGHEST,
    )
    return resampled.reshape(1, grid[0] * grid[1], -1)


def position_init(embed_dim: int) -> nn.initializers.Initializer:
    """N(0, 1/sqrt(embed_dim)), for position and token embeddings."""
    return nn.initializers.normal(embed_dim**-0.5)
