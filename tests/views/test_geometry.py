# SPDX-License-Identifier: Apache-2.0
"""Tests of mtv_jax.views.geometry: windows, and exact moves of boxes and points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core import rng
from mtv_jax.core.passes import ImageView
from mtv_jax.core.position import split_position
from mtv_jax.views.geometry import (
    Window,
    draw_windows,
    keep_boxes,
    move_boxes,
    move_points,
)

CROP = ImageView(name="crop", size=64, area=(0.4, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)


def _draw(count: int, size: tuple[int, int], view: ImageView = CROP) -> Window:
    keys = rng.position_keys(0, jnp.asarray(split_position(np.arange(count))))
    return draw_windows(keys, jnp.broadcast_to(jnp.asarray(size), (count, 2)), view)


@pytest.mark.parametrize("size", [(100, 100), (100, 150), (480, 300)])
def test_windows_keep_area_and_true_aspect(size):
    window = _draw(500, size)
    extent, start = np.asarray(window.extent), np.asarray(window.start)
    assert (start >= 0).all() and (start + extent <= 1 + 1e-6).all()
    area = extent.prod(axis=1)
    aspect = extent[:, 0] * size[1] / (extent[:, 1] * size[0])
    assert (area >= 0.4 - 1e-5).all() and (area <= 1 + 1e-5).all()
    assert (aspect >= 3 / 4 - 1e-4).all() and (aspect <= 4 / 3 + 1e-4).all()
    assert area.std() > 0.1 and aspect.std() > 0.05, "nothing is drawn"
    assert 0.4 < np.asarray(window.flip).mean() < 0.6


def test_an_image_that_no_window_fits_gives_the_central_crop():
    window = _draw(20, (10, 1000))
    extent = np.asarray(window.extent[0])
    np.testing.assert_allclose(extent, [4 / 3 * 10 / 1000, 1.0], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(window.start), 0.5 * (1 - np.asarray(window.extent)))


def test_draws_depend_on_position_alone():
    whole, part = _draw(32, (90, 120)), _draw(32, (90, 120))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
        np.testing.assert_array_equal(a, b)
    keys = rng.position_keys(0, jnp.asarray(split_position(np.arange(20, 24))))
    alone = draw_windows(keys, jnp.full((4, 2), jnp.asarray([90, 120])), CROP)
    np.testing.assert_array_equal(np.asarray(whole.start)[20:24], np.asarray(alone.start))


def test_several_views_of_one_image_differ():
    view = ImageView(name="local", size=32, count=6, area=(0.05, 0.4), flip=0.5)
    window = _draw(8, (100, 100), view)
    assert window.start.shape == (8, 6, 2) and window.flip.shape == (8, 6)
    assert len(np.unique(np.asarray(window.start[0]), axis=0)) == 6


def test_boxes_and_points_move_exactly():
    window = Window(
        start=jnp.asarray([[0.2, 0.1], [0.2, 0.1]]),
        extent=jnp.asarray([[0.5, 0.8], [0.5, 0.8]]),
        flip=jnp.asarray([False, True]),
    )
    boxes = jnp.broadcast_to(jnp.asarray([[0.3, 0.3, 0.45, 0.5]]), (2, 1, 4))
    moved = np.asarray(move_boxes(boxes, window))
    np.testing.assert_allclose(moved[0, 0], [0.2, 0.25, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(moved[1, 0], [0.5, 0.25, 0.8, 0.5], atol=1e-6)
    points = np.asarray(move_points(boxes[..., :2], window))
    np.testing.assert_allclose(points[:, 0], [[0.2, 0.25], [0.8, 0.25]], atol=1e-6)


def test_16_box_transform_round_trip():
    """Mapping back through the window's inverse returns the box, flipped or not."""
    window = _draw(64, (100, 140))
    generator = np.random.default_rng(0)
    corners = np.sort(generator.random((64, 5, 2, 2)), axis=2).reshape(64, 5, 4)
    moved = np.array(move_boxes(jnp.asarray(corners, jnp.float32), window))
    flip = np.asarray(window.flip)
    moved[flip] = moved[flip][..., [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
    scale = np.tile(np.asarray(window.extent), 2)[:, None]
    back = moved * scale + np.tile(np.asarray(window.start), 2)[:, None]
    np.testing.assert_allclose(back, corners, atol=1e-5)


def test_which_boxes_still_show():
    moved = jnp.asarray(
        [
            [0.1, 0.1, 0.5, 0.5],  # inside
            [-0.2, 0.1, 0.2, 0.5],  # half inside
            [-0.21, 0.1, 0.2, 0.5],  # less than half
            [0.1, 0.1, 0.5, 0.12],  # too thin
            [0.0, 0.0, 0.0, 0.0],  # padding
        ]
    )
    kept = keep_boxes(moved, min_fraction=0.5, min_side=8 / 224)
    np.testing.assert_array_equal(kept, [True, True, False, False, False])
