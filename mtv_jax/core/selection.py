# SPDX-License-Identifier: Apache-2.0
"""Order statistics without a sort: 32 counting passes find any rank exactly.

Floats are compared as integers of the same order, and the answer is built bit by bit from the top.
A sort of an image's pixels is slow on accelerators; a count is a reduction.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

_SIGN = jnp.uint32(1 << 31)


def order_statistic(x: Float[Array, "*b n"], rank: int) -> Float[Array, "*b"]:
    """The value that has `rank` values before it in ascending order of the last axis.

    The gradient goes to the entries that hold the value, in equal parts.

    Args:
        x: float32, finite.
        rank: 0 for the minimum, n - 1 for the maximum.
    """
    if not 0 <= rank < x.shape[-1]:
        raise ValueError(f"rank {rank} of {x.shape[-1]} values")
    x = jax.lax.optimization_barrier(x)  # computed twice it might round twice, and equal nothing
    codes = _ordered(jax.lax.stop_gradient(x))

    def refine(bit: Array, found: UInt32[Array, "*b"]) -> UInt32[Array, "*b"]:
        higher = found | (jnp.uint32(1) << (31 - bit).astype(jnp.uint32))
        below = jnp.sum(codes < higher[..., None], axis=-1)
        return jnp.where(below <= rank, higher, found)

    found = jax.lax.fori_loop(0, 32, refine, jnp.zeros(x.shape[:-1], jnp.uint32))
    holds = codes == found[..., None]
    return jnp.sum(jnp.where(holds, x, 0.0), axis=-1) / jnp.sum(holds, axis=-1)


def median(x: Float[Array, "*b n"]) -> Float[Array, "*b"]:
    """The median of the last axis; of an even number the mean of the two in the middle."""
    high = x.shape[-1] // 2
    if x.shape[-1] % 2:
        return order_statistic(x, high)
    return 0.5 * (order_statistic(x, high - 1) + order_statistic(x, high))


def _ordered(x: Float[Array, "*b n"]) -> UInt32[Array, "*b n"]:
    """Unsigned integers in the order of the floats."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32) + 0.0, jnp.uint32)  # -0 becomes +0
    return jnp.where(bits & _SIGN, ~bits, bits | _SIGN)
