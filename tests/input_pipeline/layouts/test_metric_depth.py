# SPDX-License-Identifier: Apache-2.0
"""Depth in lists of files: crops, ranges, and maps that are damaged."""

import re

import numpy as np
import pytest

from mtv_jax.core.errors import UserError
from tests.input_pipeline.layouts import trees
from tests.input_pipeline.layouts.readers import cut_short, each


@each("nyu")
def test_nyu(made):
    depth = made.raster(0, "metric_depth")
    assert depth.dtype == np.float32 and depth.shape == (480, 640)
    assert depth[45, 41] == depth[46, 41] == 0.0, "unknown, and too far"
    assert depth[47, 41] == 2.5 and depth[44, 41] == depth[471, 300] == depth[300, 601] == 0.0
    assert (depth > 0).sum() == 426 * 560 - 2


@each("nyu_train")
def test_nyu_to_train_on(made):
    """Without the border, and as far as ten metres."""
    image, depth = made.image(0), made.raster(0, "metric_depth")
    assert image.shape == (427, 565, 3) and (image == 70).all()
    assert depth.shape == (427, 565) and depth[0, :3].tolist() == [0.0, 0.0, np.float32(0.001)]
    assert (depth.ravel()[3:] == 10.0).all()


@each("kitti")
def test_kitti(made):
    """153 … 370 of 375 rows, 44 … 1196 of 1242 columns: Garg's crop."""
    depth = made.raster(0, "metric_depth")
    assert depth[200, 600] == depth[200, 601] == 0.0 and depth[200, 602] == 10.0
    rows, columns = (np.flatnonzero((depth > 0).any(axis=axis)) for axis in (1, 0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (153, 370, 44, 1196)


@each("nyu_train")
def test_a_frame_of_another_size_is_black(made, caplog):
    trees.picture(made.items[0].path, (240, 320))
    assert not made.image(0).any() and "has 240 x 320 pixels, not 480 x 640" in caplog.text


# What a depth map can be instead, and the words that say so.
NO_MAPS = {
    "8 bits": (lambda path: trees.raster(path, np.zeros((480, 640), np.uint8)), "not 16 bits"),
    "colour": (trees.picture, "not an image of one channel"),
    "cut short": (lambda path: cut_short(path), "is damaged or cut short"),
    "empty": (lambda path: path.write_bytes(b""), "not an image"),
    "gone": (lambda path: path.unlink(), "cannot read .* No such file"),
}


@pytest.mark.parametrize("how", NO_MAPS)
@each("nyu", "nyu_train", "kitti")
def test_a_damaged_depth_map_is_unknown_everywhere(made, how, caplog):
    damage, message = NO_MAPS[how]
    path = made.items[0].extra
    damage(path)
    assert made.raster(0, "metric_depth").tolist() == [[0.0]]
    (fault,) = made.faults()
    assert re.search(message, fault) and str(path) in fault and fault in caplog.text


@each("nyu", "nyu_train")
def test_a_depth_map_of_another_size_is_a_fault(made):
    assert list(made.faults()) == []
    trees.raster(made.items[0].extra, np.full((240, 320), 2000, np.uint16))
    assert not made.raster(0, "metric_depth").any()
    (fault,) = made.faults()
    assert fault.endswith(" has 240 x 320 pixels, not 480 x 640")


@each("nyu", "kitti")
def test_maps_have_a_name(made):
    with pytest.raises(UserError, match="has no maps 'depth', but 'metric_depth'"):
        made.require("depth")
