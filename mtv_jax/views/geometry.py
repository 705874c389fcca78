# SPDX-License-Identifier: Apache-2.0
"""Windows: drawn crop rectangles, and how they move boxes and points.

A window is real-valued and lives in [0, 1] of the stored image, so it means the same on the
squashed canvas, on a depth map of another size and on boxes. True aspect ratios come from the
stored image's size, which every sample carries.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mtv_jax.core.passes import ImageView

_TRIES = 10


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """Crop rectangles.

    Attributes:
        start: (x, y) of the top-left corner in [0, 1] of the stored image.
        extent: (width, height) in the same unit.
        flip: whether the crop is mirrored left-right after cutting.
    """

    start: Float[Array, "*b 2"]
    extent: Float[Array, "*b 2"]
    flip: Bool[Array, "*b"]


def draw_windows(keys: Key[Array, " b"], image_size: Int[Array, "b 2"], view: ImageView) -> Window:
    """One window per sample, or [b, v] when `view.count` > 1.

    Args:
        keys: per-sample keys.
        image_size: (height, width) of the stored images in pixels.
        view: the recipe.
    """
    if view.count == 1:
        return jax.vmap(_draw, (0, 0, None))(keys, image_size, view)
    split = jax.vmap(lambda key: jax.random.split(key, view.count))(keys)
    over_views = jax.vmap(_draw, (0, None, None))
    return jax.vmap(over_views, (0, 0, None))(split, image_size, view)


def _draw(key: Key[Array, ""], image_size: Int[Array, "2"], view: ImageView) -> Window:
    """Random resized crop: the first of ten draws that fits, else the largest central crop."""
    area_key, ratio_key, place_key, flip_key = jax.random.split(key, 4)
    height, width = jnp.maximum(image_size, 1).astype(jnp.float32)  # an unreadable sample has none
    log_low, log_high = jnp.log(jnp.asarray(view.ratio, jnp.float32))

    area = jax.random.uniform(area_key, (_TRIES,), minval=view.area[0], maxval=view.area[1])
    ratio = jnp.exp(jax.random.uniform(ratio_key, (_TRIES,), minval=log_low, maxval=log_high))
    aspect = width / height
    candidates = jnp.sqrt(jnp.stack([area * ratio / aspect, area * aspect / ratio], axis=-1))
    fits = jnp.all(candidates <= 1.0, axis=-1)

    clipped = jnp.clip(aspect, view.ratio[0], view.ratio[1])
    central = jnp.stack([jnp.minimum(clipped / aspect, 1.0), jnp.minimum(aspect / clipped, 1.0)])
    extent = jnp.where(jnp.any(fits), candidates[jnp.argmax(fits)], central)
    place = jnp.where(jnp.any(fits), jax.random.uniform(place_key, (2,)), 0.5)
    return Window(
        start=place * (1.0 - extent),
        extent=extent,
        flip=jax.random.uniform(flip_key) < view.flip,
    )


def move_points(points: Float[Array, "*b p 2"], window: Window) -> Float[Array, "*b p 2"]:
    """Points (x, y) in [0, 1] of the stored image, in [0, 1] of the view (outside it: not)."""
    moved = (points - window.start[..., None, :]) / window.extent[..., None, :]
    x = jnp.where(window.flip[..., None], 1.0 - moved[..., 0], moved[..., 0])
    return jnp.stack([x, moved[..., 1]], axis=-1)


def move_boxes(boxes: Float[Array, "*b r 4"], window: Window) -> Float[Array, "*b r 4"]:
    """Boxes (x1, y1, x2, y2) in the view's [0, 1], not clipped; a flip swaps the corners."""
    corners = boxes.reshape(*boxes.shape[:-2], -1, 2)
    moved = move_points(corners, window).reshape(boxes.shape)
    x1, x2 = moved[..., 0], moved[..., 2]
    low, high = jnp.minimum(x1, x2), jnp.maximum(x1, x2)
    return jnp.stack([low, moved[..., 1], high, moved[..., 3]], axis=-1)


def keep_boxes(
    moved: Float[Array, "*b r 4"], *, min_fraction: float, min_side: float
) -> Bool[Array, "*b r"]:
    """Which moved boxes still show: enough of their area inside the view, both sides long enough.

    Args:
        moved: output of `move_boxes`.
        min_fraction: least share of the box's area inside the view.
        min_side: least side of the clipped box, in [0, 1] of the view.
    """
    clipped = jnp.clip(moved, 0.0, 1.0)
    full, inside = moved[..., 2:] - moved[..., :2], clipped[..., 2:] - clipped[..., :2]
    enough = jnp.prod(inside, axis=-1) >= min_fraction * jnp.prod(full, axis=-1)
    return enough & jnp.all(inside >= min_side, axis=-1) & jnp.all(full > 0, axis=-1)
