# SPDX-License-Identifier: Apache-2.0
"""The readers that the tests go through, each with its miniature tree."""

import pytest

from input_pipeline.layouts.ade20k import Ade20k
from input_pipeline.layouts.coco import CocoCaptions
from input_pipeline.layouts.imagenet import ImageNet
from input_pipeline.layouts.imagenet_tfds import ImageNetTfds
from input_pipeline.layouts.metric_depth import KittiEigen, NyuDepth, NyuTrain
from input_pipeline.layouts.nyu_mat import NyuMat
from tests.input_pipeline.layouts import trees

LAYOUTS = {
    "imagenet": (trees.imagenet, ImageNet, 3),
    "imagenet_tfds": (trees.imagenet_tfds, ImageNetTfds, 3),
    "coco": (trees.coco, CocoCaptions, 2),
    "ade20k": (trees.ade20k, Ade20k, 2),
    "nyu": (trees.nyu, NyuDepth, 2),
    "nyu_mat": (trees.nyu_mat, NyuMat, 2),
    "nyu_train": (trees.nyu_train, NyuTrain, 1),
    "kitti": (trees.kitti, KittiEigen, 1),
}


def each(*names):
    return pytest.mark.parametrize("made", names or LAYOUTS, indirect=True)


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
