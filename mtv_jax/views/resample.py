# SPDX-License-Identifier: Apache-2.0
"""Antialiased separable resampling of windows as two small matrix products.

The kernels are Pillow's: Keys' cubic with a = -0.5 and the triangle, both stretched by the
downsampling factor, pixel centres at half integers, weights renormalised at the border. One
matrix per axis and window serves every channel, and a flip is a reversal of its rows.
"""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtv_jax.views.geometry import Window

Method = Literal["linear", "cubic", "nearest"]


def _triangle(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    return jnp.maximum(1.0 - jnp.abs(x), 0.0)


def _keys_cubic(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    x = jnp.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))


_KERNELS: dict[str, Callable] = {"linear": _triangle, "cubic": _keys_cubic}


def axis_weights(
    start: Float[Array, "*b"],
    extent: Float[Array, "*b"],
    *,
    size_in: int,
    size_out: int,
    method: Method,
) -> Float[Array, "*b o i"]:
    """Rows of weights that cut [start, start + extent] of an axis into `size_out` samples.

    Args:
        start: window start in [0, 1] of the axis.
        extent: window length in [0, 1] of the axis.
        size_in: samples along the axis.
        size_out: samples wanted.
        method: the kernel; "nearest" picks the sample under each output centre.
    """
    scale = extent * (size_in / size_out)  # input samples per output sample
    centres = (start * size_in)[..., None] + (jnp.arange(size_out) + 0.5) * scale[..., None]
    if method == "nearest":
        chosen = jnp.clip(jnp.floor(centres), 0, size_in - 1)
        return (chosen[..., None] == jnp.arange(size_in)).astype(jnp.float32)
    stretch = jnp.maximum(scale, 1.0)[..., None, None]
    distance = (jnp.arange(size_in) + 0.5) - centres[..., None]
    weights = _KERNELS[method](distance / stretch)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


def cut(
    raster: Float[Array, "*b h w c"], window: Window, *, size: int, method: Method
) -> Float[Array, "*v o o c"]:
    """The windows of a raster, resampled to `size` × `size` and flipped where drawn.

    `window` may carry one more axis than `raster` ([b, v] windows of [b] images).
    """
    height, width = raster.shape[-3:-1]
    rows = axis_weights(
        window.start[..., 1], window.extent[..., 1], size_in=height, size_out=size, method=method
    )
    columns = axis_weights(
        window.start[..., 0], window.extent[..., 0], size_in=width, size_out=size, method=method
    )
    columns = jnp.where(window.flip[..., None, None], columns[..., ::-1, :], columns)
    if window.flip.ndim > raster.ndim - 3:
        half = jnp.einsum("bvoh,bhwc->bvowc", rows, raster, precision="high")
    else:
        half = jnp.einsum("...oh,...hwc->...owc", rows, raster, precision="high")
    return jnp.einsum("...pw,...owc->...opc", columns, half, precision="high")
