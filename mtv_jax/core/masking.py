# SPDX-License-Identifier: Apache-2.0
"""The validity law: invalid inputs are zeroed before a tower, every reduction is a masked mean.

Zeroing by `where` rather than by a product: NaN * 0 is NaN, and a NaN that enters a tower cannot
be masked out of a gradient afterwards.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped


def expand(valid: Bool[Array, " b"], ndim: int) -> Bool[Array, "b ..."]:
    """`valid` with trailing unit axes, to broadcast against a rank-`ndim` array."""
    return valid.reshape(valid.shape + (1,) * (ndim - valid.ndim))


def zero_invalid(x: Shaped[Array, "b ..."], valid: Bool[Array, " b"]) -> Shaped[Array, "b ..."]:
    """`x` with the rows of invalid samples replaced by zeros."""
    return jnp.where(expand(valid, x.ndim), x, jnp.zeros((), x.dtype))


def masked_mean(x: Float[Array, " b"], valid: Bool[Array, " b"]) -> Float[Array, ""]:
    """Mean over valid entries, float32; 0 (with zero gradient) when there is none."""
    total = jnp.sum(jnp.where(valid, x.astype(jnp.float32), 0.0))
    return total / jnp.maximum(jnp.sum(valid), 1).astype(jnp.float32)
