# SPDX-License-Identifier: Apache-2.0
"""Miniature trees in the layouts of the distributors."""

import io
import json
import pathlib

import cv2
import numpy as np
import pytest
from PIL import Image

from input_pipeline import example, tfrecord


def picture(path: pathlib.Path, size: tuple[int, int] = (9, 7), value: int = 100) -> None:
    """An image of (height, width) `size`; its first pixel is `value` in all colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path, quality=95)


def jpeg(pixels: np.ndarray) -> bytes:
    """An encoded image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def raster(path: pathlib.Path, values: np.ndarray) -> None:
    """A PNG of one channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), values)


def imagenet(root: pathlib.Path) -> None:
    """A thousand classes, three images; one of them is gray, one has another suffix."""
    ids = [f"n{number:08d}" for number in range(1440764, 1441764)]
    for name in ids:
        (root / "val" / name).mkdir(parents=True)
    picture(root / "val" / ids[0] / "ILSVRC2012_val_00000293.JPEG", value=10)
    picture(root / "val" / ids[7] / "ILSVRC2012_val_00000002.JPEG", value=20)
    gray = root / "val" / ids[999] / "ILSVRC2012_val_00000001.jpg"
    Image.fromarray(np.full((5, 6), 30, np.uint8)).save(gray)


TFDS_LABELS = ((0, 7), (999,))  # by shard


def imagenet_tfds(root: pathlib.Path) -> None:
    """Two shards of TFDS with two images and one, as its version 4.9.10 writes them."""
    folder = root / "imagenet2012" / "5.1.0"
    folder.mkdir(parents=True)
    ids = [f"n{number:08d}" for number in range(1440764, 1441764)]
    (folder / "label.labels.txt").write_text("\n".join(ids) + "\n")
    for shard, labels in enumerate(TFDS_LABELS):
        name = f"imagenet2012-validation.tfrecord-{shard:05d}-of-00002"
        with tfrecord.RecordWriter(folder / name) as writer:
            for label in labels:
                image = np.full((9, 7, 3), label % 250, np.uint8)
                record = dict(image=jpeg(image), label=label, file_name="ILSVRC2012_val_1.JPEG")
                writer.write(example.encode(record))
        tfrecord.index_path(folder / name).unlink()
    validation = {
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "name": "validation",
        "numBytes": "3580",
        "shardLengths": [str(len(labels)) for labels in TFDS_LABELS],
    }
    info = {"fileFormat": "tfrecord", "name": "imagenet2012", "splits": [validation]}
    (folder / "dataset_info.json").write_text(json.dumps(info | {"version": "5.1.0"}))


def coco(root: pathlib.Path) -> None:
    """Two test images of five and six captions, one of another split."""
    entries = []
    for number, (split, count) in enumerate([("test", 5), ("restval", 5), ("test", 6)]):
        name = f"COCO_val2014_{number:012d}.jpg"
        picture(root / "val2014" / name, value=10 * number)
        sentences = [{"raw": f"Caption {number}-{k}.", "tokens": []} for k in range(count)]
        entries.append(
            dict(filepath="val2014", filename=name, split=split, sentences=sentences, cocoid=number)
        )
    (root / "dataset_coco.json").write_text(json.dumps({"images": entries, "dataset": "coco"}))


def ade20k(root: pathlib.Path) -> None:
    """Two validation images and one for training, of odd sizes; classes 0 (other), 1 and 150."""
    for split, name, size in (
        ("validation", "ADE_val_00000001", (9, 7)),
        ("validation", "ADE_val_00000002", (5, 11)),
        ("training", "ADE_train_00000001", (6, 6)),
    ):
        picture(root / "images" / split / f"{name}.jpg", size)
        segments = np.full(size, 150, np.uint8)
        segments[0], segments[1] = 0, 1
        raster(root / "annotations" / split / f"{name}.png", segments)
    names = [f"{k}\t0.1\t10\t10\tname {k}, synonym" for k in range(1, 151)]
    text = "\n".join(["Idx\tRatio\tTrain\tVal\tName", *names]) + "\n"
    (root / "objectInfo150.txt").write_text(text)


def nyu(root: pathlib.Path) -> None:
    """Two rooms; depths of 0, 2.5 and 12 metres in the crop, 3 outside it."""
    lines = []
    for room in ("bathroom", "kitchen"):
        picture(root / room / "rgb_00045.jpg", (480, 640))
        depth = np.full((480, 640), 3000, np.uint16)
        depth[45:471, 41:601] = 2500
        depth[45, 41], depth[46, 41] = 0, 12_000
        raster(root / room / "sync_depth_00045.png", depth)
        lines.append(f"{room}/rgb_00045.jpg {room}/sync_depth_00045.png 518.8579")
    (root / "nyudepthv2_test_files_with_gt.txt").write_text("\n".join(lines) + "\n")


def nyu_mat(root: pathlib.Path) -> None:
    """Two rooms of three, as MATLAB writes them; depths as those of `nyu`, in metres."""
    h5py, matlab = pytest.importorskip("h5py"), pytest.importorskip("scipy.io")
    images = np.full((3, 480, 640, 3), 255, np.uint8)
    images[:, 7:474, 7:632] = [10, 20, 30]
    depth = np.full((3, 480, 640), 3.0, np.float32)
    depth[:, 45:471, 41:601] = 2.5009
    depth[:, 45, 41], depth[:, 46, 41] = 0.0, 12.0
    for room in range(3):
        images[room, 7, 7] = 100 + room
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        for name, rows in (("images", images.transpose(0, 3, 2, 1)), ("rawDepths", depth.mT)):
            chunk = (1, *rows.shape[1:])
            file.create_dataset(name, data=rows, chunks=chunk, compression="gzip")
    splits = {"testNdxs": np.array([[1], [3]]), "trainNdxs": np.array([[2]])}
    matlab.savemat(root / "splits.mat", splits)


def nyu_train(root: pathlib.Path) -> None:
    """A frame with a white border; depths of 0, 10 and 11 metres, and 1 millimetre."""
    frame = np.full((480, 640, 3), 255, np.uint8)
    frame[45:472, 43:608] = 70
    folder = root / "cafe_0001a"
    folder.mkdir(parents=True)
    Image.fromarray(frame).save(folder / "rgb_00000.png")
    depth = np.full((480, 640), 10_000, np.uint16)
    depth[45, 43:46] = 0, 11_000, 1
    raster(folder / "sync_depth_00000.png", depth)
    line = "/cafe_0001a/rgb_00000.png /cafe_0001a/sync_depth_00000.png 518.8579\n"
    (root / "nyudepthv2_train_files_with_gt.txt").write_text(line)


def kitti(root: pathlib.Path) -> None:
    """Two frames, one without truth; 10 metres in the crop, 90 in one of its pixels."""
    day, drive = "2011_09_26", "2011_09_26_drive_0002_sync"
    lines = []
    for number in (69, 70):
        image = f"{day}/{drive}/image_02/data/{number:010d}.png"
        depth = f"{drive}/proj_depth/groundtruth/image_02/{number:010d}.png"
        picture(root / "input" / image, (375, 1242))
        if number == 69:
            values = np.full((375, 1242), 10 * 256, np.uint16)
            values[200, 600], values[200, 601] = 90 * 256, 0
            raster(root / "gt_depth" / depth, values)
        lines.append(f"{image} {depth if number == 69 else 'None'} 721.5377")
    (root / "eigen_test_files_with_gt.txt").write_text("\n".join(lines) + "\n")


CAT_POINTS = {
    "2008_000001": {"0": [10, 20], "1": [30, 39], "2": None},
    "2008_000002": {"0": [0, 0], "1": [19, 10], "2": [5, 5]},
}
CAT_SIZES = {"2008_000001": (40, 80), "2008_000002": (20, 20)}  # height, width


def spair(root: pathlib.Path) -> None:
    """Two cats, one of which lacks a keypoint, in both orders; a pair of dogs."""
    animals = {
        "cat": CAT_POINTS,
        "dog": {"2009_000007": {"0": [3, 3]}, "2009_000008": {"0": [4, 4]}},
    }
    sizes = {**CAT_SIZES, "2009_000007": (8, 8), "2009_000008": (16, 8)}
    number = 0
    for category, known in animals.items():
        for name, points in known.items():
            picture(root / "JPEGImages" / category / f"{name}.jpg", sizes[name])
            path = root / "ImageAnnotation" / category / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"filename": f"{name}.jpg", "kps": points}))
        first, second = known
        for view, (source, target) in enumerate(((first, second), (second, first))):
            number += 1
            pair = {
                "filename": f"{number:06d}-{source}-{target}:{category}",
                "category": category,
                "viewpoint_variation": view,
                "src_imname": f"{source}.jpg",
                "trg_imname": f"{target}.jpg",
                "src_imsize": [*sizes[source][::-1], 3],
                "trg_imsize": [*sizes[target][::-1], 3],
                "trg_bndbox": [0, 0, sizes[target][1] // 2, sizes[target][0] // 2],
            }
            path = root / "PairAnnotation" / "test" / f"{pair['filename']}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(pair))


NAVI_DEGREES = (0, 20, 40, 70, 130)  # of views about the camera's axis


def navi(root: pathlib.Path) -> None:
    """A disc 1 m away, seen by cameras that turn about their axis."""
    folder = root / "plate" / "wild_set"
    entries = []
    side, radius = 64, 20
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    disc = x**2 + y**2 < radius**2
    for number, degrees in enumerate(NAVI_DEGREES):
        picture(folder / "images" / f"{number:03d}.jpg", (side, side), value=50 * number)
        codes = np.where(disc, round(65_535 * 10 / 1000), 0).astype(np.uint16)
        raster(folder / "depth" / f"{number:03d}.png", codes)
        half = np.radians(degrees) / 2
        camera = {
            "q": [float(np.cos(half)), 0.0, 0.0, float(np.sin(half))],
            "t": [0.0, 0.0, 1000.0],
            "focal_length": 64.0,
        }
        entry = {"filename": f"{number:03d}.jpg", "image_size": [side, side], "camera": camera}
        entries.append(entry)
    (folder / "annotations.json").write_text(json.dumps(entries[::-1]))
