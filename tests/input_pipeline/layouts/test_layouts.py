# SPDX-License-Identifier: Apache-2.0
"""Readers on miniature trees, and what they say of five kinds of damage."""

import os
import pathlib
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from input_pipeline import example, files, tfrecord
from input_pipeline.eval_data import IGNORED
from input_pipeline.layouts import clip_lists, nyu_mat
from input_pipeline.layouts.ade20k import Ade20k
from input_pipeline.layouts.coco import CocoCaptions
from input_pipeline.layouts.imagenet import ImageNet
from input_pipeline.layouts.imagenet_tfds import ImageNetTfds
from input_pipeline.layouts.metric_depth import KittiEigen, NyuDepth, NyuTrain
from input_pipeline.layouts.nyu_mat import NyuMat
from mtv_jax.core.errors import UserError
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


@pytest.fixture
def made(request, tmp_path):
    """The reader of a fresh tree."""
    make, reader, _ = LAYOUTS[request.param]
    make(tmp_path)
    return reader(root=str(tmp_path))


def each(*names):
    return pytest.mark.parametrize("made", names or LAYOUTS, indirect=True)


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


@each("imagenet_tfds")
def test_imagenet_of_tfds(made):
    made.open()
    assert made.labels().tolist() == [0, 7, 999]
    pixels = [int(made.image(row)[0, 0, 0]) for row in range(3)]
    assert pixels == pytest.approx([0, 7, 249], abs=2)
    assert ImageNetTfds(root=made.root, limit=1).labels().tolist() == [0]


@each("imagenet_tfds")
def test_a_read_only_folder_of_tfds(made, monkeypatch):
    """Offsets are found anew, and stay in memory."""

    def refuse(path, data):
        raise PermissionError(path)

    monkeypatch.setattr(files, "write_atomically", refuse)
    made.open()
    assert made.labels().tolist() == [0, 7, 999]
    assert not list(pathlib.Path(made.root).rglob("*.index"))


@each("imagenet_tfds")
def test_records_of_tfds_that_cannot_be_trusted(made, caplog):
    """The image is black and logged; a class that is unknown is an error."""
    path = made.items[0].path
    data = bytearray(path.read_bytes())
    data[40] ^= 255
    path.write_bytes(data)
    made.open()
    assert not made.image(0).any() and "row 0 at byte 0: payload checksum" in caplog.text
    assert made.image(1).any()
    with pytest.raises(UserError, match=r"row 0 at byte 0: payload checksum.*; get it from http"):
        made.labels()


@pytest.mark.parametrize(("record", "message"), [
    ({"label": -1, "image": b""}, "the split validation has no labels; get it from http"),
    ({"label": 1000, "image": b""}, "the split validation has no labels"),
    ({"image": b""}, "row 0 has no feature 'label' of ImageNet"),
    ({"label": [1, 2]}, "row 0 has no feature 'label' of ImageNet"),
])  # fmt: skip
@each("imagenet_tfds")
def test_labels_of_tfds_that_are_none(made, record, message):
    with tfrecord.RecordWriter(made.items[2].path) as writer:
        writer.write(example.encode(record))
    with pytest.raises(UserError, match=message):
        made.labels()


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


@each("nyu")
def test_nyu(made):
    depth = made.raster(0, "metric_depth")
    assert depth.dtype == np.float32 and depth.shape == (480, 640)
    assert depth[45, 41] == depth[46, 41] == 0.0, "unknown, and too far"
    assert depth[47, 41] == 2.5 and depth[44, 41] == depth[471, 300] == depth[300, 601] == 0.0
    assert (depth > 0).sum() == 426 * 560 - 2


@each("nyu_mat")
def test_nyu_as_its_distributor_ships_it(made):
    """Rows and columns in their places, without the border; depth in whole millimetres."""
    image, depth = made.image(1), made.raster(1, "metric_depth")
    assert image.shape == (480, 640, 3) and image[7, 7].tolist() == [102] * 3
    assert image[473, 631].tolist() == [10, 20, 30]
    inside = np.zeros((480, 640), bool)
    inside[7:474, 7:632] = True
    assert not image[~inside].any() and image[inside].all()
    assert depth.dtype == np.float32 and depth.shape == (480, 640)
    assert depth[47, 41] == np.float32(2.5) and depth[45, 41] == depth[46, 41] == 0.0
    assert (depth > 0).sum() == 426 * 560 - 2 and not list(made.faults())
    train = NyuMat(root=made.root, split="train")
    assert len(train) == 1 and train.image(0)[7, 7].tolist() == [101] * 3


@each("nyu_mat")
def test_nyu_is_read_by_many_threads(made):
    """As by one."""
    wanted = [made.image(row) for row in (0, 1)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(made.image, [0, 1] * 20))
    assert all((image == wanted[row % 2]).all() for row, image in enumerate(found))


@each("nyu_mat")
def test_every_process_opens_nyu_for_itself(made, monkeypatch):
    path = made.items[0].path
    own = nyu_mat._opened(path, os.getpid())
    monkeypatch.setattr(nyu_mat.os, "getpid", lambda: -1)
    made.image(0)
    assert nyu_mat._opened(path, -1) is not own and own["images"].shape == (3, 3, 640, 480)


@each("nyu_mat")
def test_rows_of_nyu_that_cannot_be_read(made, caplog):
    """Damage inside a row's compressed bytes."""
    row, path = made.items[1].known, made.items[0].path
    with pytest.importorskip("h5py").File(path) as file:
        places = [file[name].id.get_chunk_info(row).byte_offset for name in ("images", "rawDepths")]
    with open(path, "r+b") as file:
        for place in places:
            file.seek(place + 512 + 100)
            file.write(b"damage" * 20)
    made.open()
    assert not made.image(1).any() and "unreadable: image 1 of" in caplog.text
    assert made.raster(1, "metric_depth").shape == (1, 1)
    (fault,) = made.faults()
    assert fault.startswith(f"{path}: row 2 of rawDepths: ")
    assert made.image(0).any()


@pytest.mark.parametrize("package", ["h5py", "scipy.io"])
@each("nyu_mat")
def test_without_the_packages_of_nyu_the_remedy_is_named(made, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install h5py scipy$"):
        made.open()


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


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path):
    if path.is_dir():
        path.rename(path.with_name("elsewhere"))
    else:
        path.unlink()


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
    ("imagenet", "val/n01440764", remove, "has 999 folders of classes, not 1000"),
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
    ("nyu_mat", "splits.mat", splits(testNdxs=[[4]]), "counts 4 images, .*labeled.mat has 3"),
    ("nyu_mat", "splits.mat", splits(testNdxs=[[0]]), "counts 0 images, .*labeled.mat has 3"),
    ("nyu_mat", MAT, remove, f"{MAT} cannot be read .*No such file"),
    ("nyu_mat", MAT, cut_short, f"{MAT} cannot be read .*truncated"),
    ("nyu_mat", MAT, text("x"), f"{MAT} cannot be read"),
    ("nyu_mat", MAT, arrays(images=(1, 3, 640, 480)), f"{MAT} cannot be read .*rawDepths"),
    ("nyu_mat", MAT, arrays(images=(1, 3, 480, 640), rawDepths=(1, 480, 640)), "of the shapes"),
    ("nyu_mat", MAT, arrays(images=(3, 3, 640, 480), rawDepths=(2, 640, 480)), "of the shapes"),
    ("nyu_train", TRAIN_LIST, remove, f"{TRAIN_LIST} cannot be read"),
    ("nyu_train", TRAIN_LIST, text("\na,b\n"), f"line 2 of {TRAIN_LIST} is not an image"),
    ("nyu_train", TRAIN_LIST, text("\n\n"), "it holds no images"),
    ("nyu_train", "cafe_0001a", remove, "2 of its files are missing"),
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


@each("coco", "nyu")
def test_a_damaged_image_is_black_and_logged(made, caplog):
    made.items[1].path.write_bytes(b"no image")
    assert not made.image(1).any() and "unreadable: image 1 of" in caplog.text
    assert made.image(0).any() == (made.image(0).max() > 0)


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
    path = made.items[0].known
    damage(path)
    assert made.raster(0, "metric_depth").tolist() == [[0.0]]
    (fault,) = made.faults()
    assert re.search(message, fault) and str(path) in fault and fault in caplog.text


@each("nyu", "nyu_train")
def test_a_depth_map_of_another_size_is_a_fault(made):
    assert list(made.faults()) == []
    trees.raster(made.items[0].known, np.full((240, 320), 2000, np.uint16))
    assert not made.raster(0, "metric_depth").any()
    (fault,) = made.faults()
    assert fault.endswith(" has 240 x 320 pixels, not 480 x 640")


@each("nyu", "kitti")
def test_maps_have_a_name(made):
    with pytest.raises(UserError, match="has no maps 'depth', but 'metric_depth'"):
        made.require("depth")


@each("ade20k")
def test_segments_of_another_kind_are_refused(made):
    path = made.items[0].known
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


@pytest.fixture
def no_lists(monkeypatch):
    clip_lists._metadata.cache_clear()
    yield monkeypatch
    clip_lists._metadata.cache_clear()


def test_clips_lists_are_read_from_the_package(no_lists, tmp_path):
    """Without importing it: the package itself needs PyTorch."""
    package = tmp_path / "open_clip"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('torch')")
    (package / "zero_shot_metadata.py").write_text(
        "IMAGENET_CLASSNAMES = ['tench', 'goldfish']\n"
        "OPENAI_IMAGENET_TEMPLATES = (lambda c: f'a bad photo of a {c}.',)\n"
    )
    no_lists.syspath_prepend(str(tmp_path))
    assert clip_lists.clip_list("IMAGENET_CLASSNAMES") == ["tench", "goldfish"]
    assert clip_lists.clip_list("OPENAI_IMAGENET_TEMPLATES") == ["a bad photo of a {}."]
    with pytest.raises(UserError, match="open_clip has no list CAR"):
        clip_lists.clip_list("CAR")


def test_without_the_package_the_remedy_is_named(no_lists):
    no_lists.setattr(clip_lists.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps open_clip_torch"):
        clip_lists.clip_list("IMAGENET_CLASSNAMES")
