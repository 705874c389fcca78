# SPDX-License-Identifier: Apache-2.0
"""Tests of mtv_jax.views.batch: one window moves every column of a sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core.fields import BOXES, CAPTION, DEPTH, IMAGE, Field
from mtv_jax.core.passes import ImageView, TextView
from mtv_jax.core.position import split_position
from mtv_jax.views.batch import Batch, BatchSpec, cut_views, open_batch

NORMALS = Field(name="normals", shape="h w 3", geometry="vector_raster")
SPEC = BatchSpec(
    views=(
        ImageView(name="crop", size=32, area=(0.3, 0.9), flip=0.5),
        ImageView(name="local", size=16, count=3, area=(0.1, 0.4)),
        TextView(name="caption", length=4, pooling_slot=3),
        TextView(name="phrases", length=4, pooling_slot=3, field="phrases", table=True),
    ),
    fields=(IMAGE, CAPTION, DEPTH, BOXES, NORMALS),
    patch_size=8,
)
COUNT, CANVAS = 6, 64
COLUMNS = ("image", "caption", "depth", "boxes", "normals")


def _raw() -> dict:
    """Images with one bright rectangle; the box is the rectangle, the depth map its mask."""
    generator = np.random.default_rng(0)
    image = np.zeros((COUNT, CANVAS, CANVAS, 3), np.uint8)
    depth = np.zeros((COUNT, CANVAS, CANVAS), np.uint16)
    boxes = np.zeros((COUNT, 20, 4), np.float32)
    for i in range(COUNT):
        x1, y1 = generator.integers(20, 30, 2)
        x2, y2 = generator.integers(34, 44, 2)
        image[i, y1:y2, x1:x2] = 255
        depth[i, y1:y2, x1:x2] = 60_000
        boxes[i, 0] = np.asarray([x1, y1, x2, y2]) / CANVAS
    return {
        "position": split_position(np.arange(COUNT)),
        "record_id": np.zeros((COUNT, 3), np.int32),
        "image_size": np.full((COUNT, 2), 48, np.int32),
        "valid": {name: np.ones(COUNT, bool) for name in COLUMNS},
        "image": image,
        "caption": np.ones((COUNT, 4), np.int32),
        "depth": depth,
        "boxes": boxes,
        "normals": np.tile(np.asarray([0.6, 0.0, 0.8], np.float32), (COUNT, CANVAS, CANVAS, 1)),
    }


def _open(raw: dict) -> Batch:
    return open_batch(jax.tree.map(jnp.asarray, raw), seed=0, spec=SPEC)


def test_image_depth_and_boxes_move_together():
    batch = cut_views(_open(_raw()))
    pixels = np.asarray(batch.inputs["crop"])
    depth = np.asarray(batch.under("crop", "depth"))
    boxes = np.asarray(batch.under("crop", "boxes"))[:, 0] * 32
    assert pixels.shape == (COUNT, 32, 32, 3) and pixels.min() >= -1 and pixels.max() <= 1
    for i in range(COUNT):
        ys, xs = np.nonzero(pixels[i, ..., 0] > 0)
        found = np.asarray([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        np.testing.assert_allclose(np.clip(boxes[i], 0, 32), found, atol=1.0)
        agree = (depth[i] > 30_000) == (pixels[i, ..., 0] > 0)
        assert agree.mean() > 0.99


def test_a_flip_turns_normals():
    batch = _open(_raw())
    flipped = np.asarray(batch.windows["crop"].flip)
    assert flipped.any() and not flipped.all()
    normals = np.asarray(batch.under("crop", "normals"))
    x = np.where(flipped, -0.6, 0.6)[:, None, None]
    np.testing.assert_allclose(normals[..., 0], np.broadcast_to(x, (COUNT, 32, 32)), atol=1e-5)
    np.testing.assert_allclose(normals[..., 2], 0.8, atol=1e-5)


def test_inputs_of_all_kinds_of_views():
    batch = cut_views(_open(_raw()))
    assert batch.inputs["local"].shape == (COUNT, 3, 16, 16, 3)
    assert batch.inputs["caption"].shape == (COUNT, 4)
    assert "phrases" not in batch.inputs, "a table is not aligned with the batch"
    assert batch.grid("crop") == 4


def test_windows_do_not_depend_on_the_neighbours_in_the_batch():
    raw = _raw()
    part = jax.tree.map(lambda x: x[2:4], raw)
    whole = _open(raw).windows["local"]
    some = _open(part).windows["local"]
    np.testing.assert_array_equal(np.asarray(whole.start)[2:4], np.asarray(some.start))


def test_invalid_columns_are_zeroed_and_other_geometry_refuses():
    raw = _raw()
    raw["valid"]["caption"] = np.zeros(COUNT, bool)
    batch = cut_views(_open(raw))
    assert not np.asarray(batch.inputs["caption"]).any()
    with pytest.raises(ValueError, match="nothing moves it"):
        batch.under("crop", "caption")


def test_nan_in_an_invalid_raster_stays_out():
    raw = _raw()
    raw["valid"]["normals"][1] = False
    raw["normals"][1] = np.nan
    moved = np.asarray(_open(raw).under("crop", "normals"))
    assert not moved[1].any() and moved[0].any()


def test_an_unreadable_sample_is_finite():
    raw = _raw()
    raw["image_size"][1] = 0
    raw["valid"]["image"][1] = False
    batch = cut_views(_open(raw))
    assert bool(jnp.isfinite(batch.inputs["crop"]).all())
