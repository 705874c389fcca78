# SPDX-License-Identifier: Apache-2.0
"""What every reader says of files that are missing, cut short, or of another form."""

import pathlib

import numpy as np
import pytest

from input_pipeline.layouts.imagenet import ImageNet
from mtv_jax.core.errors import UserError
from tests.input_pipeline.layouts import trees
from tests.input_pipeline.layouts.readers import cut_short, each


def remove(path):
    if path.is_dir():
        path.rename(path.with_name("elsewhere"))
    else:
        path.unlink()


def no_images(folder):
    for path in folder.glob("*/*.*"):
        path.unlink()


def emptied(folder):
    for path in folder.rglob("*.jpg"):
        path.unlink()


def cut_within_a_character(path):
    path.write_bytes("größe.jpg größe.png 1\n".encode()[:3])


def text(words):
    return lambda path: path.write_text(words)


def replaced(old, new):
    def damage(path):
        words = path.read_text()
        assert old in words
        path.write_text(words.replace(old, new, 1))

    return damage


def splits(**rows):
    return lambda path: pytest.importorskip("scipy.io").savemat(path, rows)


def arrays(**shapes):
    def write(path):
        with pytest.importorskip("h5py").File(path, "w") as file:
            for name, shape in shapes.items():
                file[name] = np.zeros(shape, np.uint8)

    return write


MAT = "nyu_depth_v2_labeled.mat"
TFDS, INFO = "imagenet2012/5.1.0/", "imagenet2012/5.1.0/dataset_info.json"
SHARD = "imagenet2012-validation.tfrecord-00001-of-00002"
TEST_LIST, KITTI_LIST = "nyudepthv2_test_files_with_gt.txt", "eigen_test_files_with_gt.txt"
TRAIN_LIST = "nyudepthv2_train_files_with_gt.txt"
ANNOTATIONS = "annotations/validation/ADE_val_00000002.png"
# By layout: what is damaged, how, and the words that say so.
DAMAGE = [
    ("imagenet", "val", remove, "the folder val is missing"),
    ("imagenet", "val", no_images, "it holds no images"),
    ("imagenet", "val/n01440764", remove, "has 999 folders of classes, not 1000"),
    ("imagenet", "val/n99999999", pathlib.Path.mkdir, "has 1001 folders of classes, not 1000"),
    ("imagenet_tfds", "imagenet2012", remove, "the folder imagenet2012/5.1.0 is missing"),
    ("imagenet_tfds", f"{TFDS}{SHARD}", remove, f"1 of its files are missing.*{SHARD}"),
    ("imagenet_tfds", f"{TFDS}{SHARD}", cut_short, f"{SHARD}: row 0 at byte 0: cut short"),
    ("imagenet_tfds", INFO, replaced('"1"', '"2"'), f"{SHARD} has 1 images, dataset_info.* says 2"),
    ("imagenet_tfds", INFO, replaced("validation", "train"), "has no shards of validation"),
    ("imagenet_tfds", INFO, replaced('"1"', '"x"'), "has no shards of validation"),
    ("imagenet_tfds", INFO, text("[]"), "has no shards of validation"),
    ("imagenet_tfds", INFO, replaced('["2", "1"]', "[]"), "it holds no images"),
    ("imagenet_tfds", INFO, cut_short, f"the file {INFO} is no JSON"),
    ("imagenet_tfds", INFO, replaced("tfrecord", "array_record"), "it is prepared as array_record"),
    (
        "imagenet_tfds",
        f"{TFDS}label.labels.txt",
        replaced("n01440764", ""),
        "not name 1000 classes",
    ),
    (
        "imagenet_tfds",
        f"{TFDS}label.labels.txt",
        replaced("01440764", "9"),
        "not name 1000 classes",
    ),
    ("coco", "dataset_coco.json", remove, r"dataset_coco.json cannot be read \(No such file"),
    ("coco", "dataset_coco.json", cut_short, "the file dataset_coco.json is no JSON"),
    ("coco", "dataset_coco.json", text("[]"), "is not Karpathy's"),
    ("coco", "dataset_coco.json", text('{"images": [{"id": 1}]}'), "is not Karpathy's"),
    ("coco", "dataset_coco.json", text('{"images": []}'), "it holds no images"),
    ("coco", "val2014/COCO_val2014_000000000002.jpg", remove, "1 of its files are missing"),
    ("ade20k", "annotations/validation", remove, "the folder annotations/validation is missing"),
    ("ade20k", "images", remove, "the folder images/validation is missing"),
    ("ade20k", "images", emptied, "2 of its files are missing.*images.*00000001.jpg"),
    ("ade20k", ANNOTATIONS, remove, "1 of its files are missing.*annotations.*00000002.png"),
    ("ade20k", "images/validation/ADE_val_00000002.jpg", remove, "1 .* missing.*00000002.jpg"),
    ("nyu", TEST_LIST, remove, f"{TEST_LIST} cannot be read"),
    ("nyu", TEST_LIST, lambda p: p.write_bytes(b"\xff\xfe"), f"{TEST_LIST} cannot be read"),
    ("nyu", TEST_LIST, text("a.jpg\n"), f"line 1 of {TEST_LIST} is not an image and a depth map"),
    ("nyu", TEST_LIST, text(""), "it holds no images"),
    ("nyu", "kitchen/sync_depth_00045.png", remove, "1 of its files are missing"),
    ("nyu_mat", "splits.mat", remove, r"splits.mat cannot be read .*No such file"),
    ("nyu_mat", "splits.mat", cut_short, "splits.mat cannot be read"),
    ("nyu_mat", "splits.mat", text("x"), "splits.mat cannot be read"),
    ("nyu_mat", "splits.mat", splits(other=[[1]]), "splits.mat cannot be read.*testNdxs"),
    ("nyu_mat", "splits.mat", splits(testNdxs=[[]]), "it holds no images"),
    ("nyu_mat", "splits.mat", splits(testNdxs=[[4]]), "names images 4 to 4, .*labeled.mat has 3"),
    ("nyu_mat", "splits.mat", splits(testNdxs=[[0]]), "names images 0 to 0, .*labeled.mat has 3"),
    ("nyu_mat", MAT, remove, f"{MAT} cannot be read .*No such file"),
    ("nyu_mat", MAT, cut_short, f"{MAT} cannot be read .*truncated"),
    ("nyu_mat", MAT, text("x"), f"{MAT} cannot be read"),
    ("nyu_mat", MAT, arrays(images=(1, 3, 640, 480)), f"{MAT} cannot be read .*rawDepths"),
    ("nyu_mat", MAT, arrays(images=(1, 3, 480, 640), rawDepths=(1, 480, 640)), "of the shapes"),
    ("nyu_mat", MAT, arrays(images=(), rawDepths=(1, 480, 640)), "of the shapes"),
    ("nyu_mat", MAT, arrays(**{"images/0": (1,)}), f"{MAT} cannot be read"),
    ("nyu_mat", MAT, arrays(images=(3, 3, 640, 480), rawDepths=(2, 640, 480)), "of the shapes"),
    ("nyu_train", TRAIN_LIST, remove, f"{TRAIN_LIST} cannot be read"),
    ("nyu_train", TRAIN_LIST, text("\na,b\n"), f"line 2 of {TRAIN_LIST} is not an image"),
    ("nyu_train", TRAIN_LIST, text("\n\n"), "it holds no images"),
    ("nyu_train", "cafe_0001a", remove, "2 of its files are missing"),
    ("nyu_train", TRAIN_LIST, cut_within_a_character, f"{TRAIN_LIST} cannot be read"),
    ("kitti", "gt_depth", remove, "the folder gt_depth is missing"),
    ("kitti", "input", remove, "the folder input is missing"),
    ("kitti", KITTI_LIST, remove, f"{KITTI_LIST} cannot be read"),
    ("kitti", KITTI_LIST, text("a.png None 1.0\n"), "it holds no images"),
    ("kitti", "input/2011_09_26", remove, "1 of its files are missing"),
]


@pytest.mark.parametrize(("made", "path", "damage", "message"), DAMAGE, indirect=["made"], ids=str)
def test_damage_is_one_line_with_a_remedy(made, tmp_path, path, damage, message):
    damage(tmp_path / path)
    with pytest.raises(UserError, match=rf"{message}.*; get it from http") as caught:
        made.open()
    assert "\n" not in str(caught.value)


@each("imagenet")
def test_images_that_are_not_sorted_into_folders(made, tmp_path):
    trees.picture(tmp_path / "flat" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(UserError, match=r"has 0 folders of classes.*not in folders yet"):
        ImageNet(root=str(tmp_path), split="flat").open()
