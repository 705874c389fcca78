# SPDX-License-Identifier: Apache-2.0
"""Readers on miniature trees."""

import dataclasses

import numpy as np
import pytest

from input_pipeline.eval_data import IGNORED
from input_pipeline.layouts.coco import CocoCaptions
from mtv_jax.core.errors import UserError
from tests.input_pipeline.layouts import trees
from tests.input_pipeline.layouts.readers import LAYOUTS, cut_short, each


@each()
def test_images_come_in_order(made, request):
    made.open()
    count = LAYOUTS[request.node.callspec.params["made"]][2]
    assert len(made) == count
    assert all(made.image(row).dtype == np.uint8 for row in range(count))
    assert all(made.image(row).shape[2] == 3 for row in range(count))
    fewer = type(made)(root=made.root, limit=1)
    assert len(fewer) == 1 and (fewer.image(0) == made.image(0)).all()


@each("imagenet")
def test_imagenet(made):
    assert made.labels().tolist() == [0, 7, 999]
    assert [int(made.image(row)[0, 0, 0]) for row in range(3)] == pytest.approx([10, 20, 30], abs=2)
    assert made.image(2).shape == (5, 6, 3), "gray becomes RGB"


@each("imagenet", "imagenet_tfds")
def test_the_middle_of_an_image(made):
    whole = made.image(0)
    middle = dataclasses.replace(made, central=0.5).image(0)
    height, width = whole.shape[:2]
    assert middle.shape == (round(height / 2), round(width / 2), 3)
    top, left = (height - len(middle)) // 2, (width - middle.shape[1]) // 2
    assert (middle == whole[top : top + len(middle), left : left + middle.shape[1]]).all()
    assert (dataclasses.replace(made, central=1.0).image(0) == whole).all()


@each("coco")
def test_coco(made):
    first, second = made.captions()
    assert first == tuple(f"Caption 0-{k}." for k in range(5)) and len(second) == 6
    assert len(type(made)(root=made.root, split="restval")) == 1


@each("ade20k")
def test_ade20k(made):
    segments = made.segments(1)
    assert segments.shape == (5, 11) and segments.dtype == np.uint8
    assert [int(segments[row, 0]) for row in range(3)] == [IGNORED, 0, 149]
    names = made.segment_names()
    assert len(names) == 150 and names[0] == "name 1" and names[149] == "name 150"


@pytest.mark.parametrize("damage", [cut_short, lambda path: path.write_bytes(b"no image")])
@each("imagenet", "coco", "ade20k", "nyu", "nyu_train", "kitti")
def test_a_damaged_image_is_black_and_logged(made, damage, caplog):
    last = len(made) - 1
    assert made.image(last).any()
    damage(made.items[last].path)
    made.open()
    assert not made.image(last).any() and f"unreadable: image {last} of" in caplog.text
    if last:
        assert made.image(0).shape != made.image(last).shape


@each("ade20k")
def test_segments_of_another_kind_are_refused(made):
    path = made.items[0].extra
    for values in (np.full((9, 7), 151, np.uint8), np.zeros((9, 7), np.uint16)):
        trees.raster(path, values)
        with pytest.raises(UserError, match="not classes up to 150"):
            made.segments(0)
    trees.picture(path)
    with pytest.raises(UserError, match="not an image of one channel"):
        made.segments(0)
    info = path.parents[2] / "objectInfo150.txt"
    info.write_text("Idx\tName\n1\twall\n")
    with pytest.raises(UserError, match="names 1 classes, not 150"):
        made.segment_names()


def test_labels_that_a_set_does_not_have(tmp_path):
    trees.coco(tmp_path)
    data = CocoCaptions(root=str(tmp_path))
    for ask in (data.labels, data.class_names, data.segment_names, lambda: data.segments(0)):
        with pytest.raises(UserError, match=r"CocoCaptions in .* (has no|names no)"):
            ask()
