# SPDX-License-Identifier: Apache-2.0
"""Scalars that change over a run: learning rate, objective weights, temperatures."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtv_jax.core.errors import UserError

Schedule = Callable[[Any], Float[Array, ""]]


def warmup_cosine(peak: float, warmup: int, total: int, final: float = 0.0) -> Schedule:
    """Linear from 0 over `warmup` steps, then cosine to `final * peak` at `total`.

    The update of step 0 uses `peak / warmup`, so no step is wasted on a rate of zero.
    """
    if total <= warmup:
        raise UserError(
            f"total_steps ({total}) must exceed optim.warmup_steps ({warmup}); "
            "lower the warm-up or train longer"
        )

    def rate(step: Any) -> Float[Array, ""]:
        step = jnp.asarray(step, jnp.float32)
        rise = (step + 1) / max(warmup, 1)
        progress = jnp.clip((step - warmup) / (total - warmup), 0.0, 1.0)
        fall = final + (1 - final) * 0.5 * (1 + jnp.cos(math.pi * progress))
        return peak * jnp.minimum(rise, 1.0) * jnp.where(step < warmup, 1.0, fall)

    return rate


def piecewise_linear(points: Mapping[float, float]) -> Schedule:
    """Linear between `{progress in [0, 1]: value}` points, constant outside them."""
    xs = jnp.asarray(sorted(points), jnp.float32)
    ys = jnp.asarray([points[x] for x in sorted(points)], jnp.float32)
    return lambda progress: jnp.interp(jnp.asarray(progress, jnp.float32), xs, ys)


def as_schedule(value: float | Mapping[float, float]) -> Schedule:
    """A number, or `{progress: value}` points, as a function of progress in [0, 1]."""
    if isinstance(value, Mapping):
        return piecewise_linear({float(k): float(v) for k, v in value.items()})
    return lambda progress: jnp.asarray(value, jnp.float32)
