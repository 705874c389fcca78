# SPDX-License-Identifier: Apache-2.0
"""Mistakes planted into the labels of made scenes are found, each by its name and none beside."""

import shutil

import cv2
import numpy as np
import pytest

from input_pipeline import store
from input_pipeline.decode import decode_image, decode_png16, encode_png16
from tools.data import label_checks, verify
from tools.scenes.labels import FIELDS
from tools.scenes.writer import Settings, write_stores

BOXES, DEPTH = "regions_v1", "depth_v1"
_SCENES = 720  # a third are not square, a sixth tall


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """The folder of a store, and its rows by holder."""
    folder = tmp_path_factory.mktemp("scenes")
    write_stores(folder, Settings(train=_SCENES, test=1, size=64), workers=1)
    path = folder / "train"
    opened = store.Store.open(path, (BOXES, DEPTH))
    places = [opened.locate(row) for row in range(opened.num_rows)]
    read = [opened.read(*place, opened.fields) for place in places]
    names = {holder: [field.name for field in opened.fields_of(holder)] for holder in FIELDS}
    return path, {
        holder: [{"key": row["key"], **{n: row[n] for n in names[holder]}} for row in read]
        for holder in (store.BASE, BOXES, DEPTH)
    }


@pytest.fixture
def planted(scenes, tmp_path):
    """A maker of a store with one sidecar, changed by a function of its row and the base's."""
    path, rows = scenes

    def make(sidecar, change, beside=()):
        copy = shutil.copytree(path, tmp_path / "copy")
        for other in {BOXES, DEPTH} - {sidecar, *beside}:
            (copy / f"{other}.json").unlink()
        changed = [
            change(dict(row), base) for row, base in zip(rows[sidecar], rows["images"], strict=True)
        ]
        _write(copy, sidecar, changed)
        return copy

    return make


def _write(path, sidecar, rows):
    for shard, size in enumerate(store.Store.open(path).shard_rows):
        store.write_shard(path, sidecar, shard, rows[:size])
        rows = rows[size:]


def _kinds(path):
    return [fault.kind for fault in label_checks.check(path, _SCENES, 1).faults]


def _boxes(change):
    """Replaces boxes [k, 4] by change(boxes, height, width); those that come out empty go."""

    def changed(row, base):
        boxes = np.asarray(row["boxes"], np.float64).reshape(-1, 4)
        boxes = np.clip(change(boxes, int(base["height"][0]), int(base["width"][0])), 0, 1)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        phrases = [phrase for phrase, keep in zip(row["phrases"], kept, strict=True) if keep]
        return {
            **row,
            "boxes": boxes[kept].ravel(),
            "phrases": phrases,
            "scores": row["scores"][kept],
        }

    return changed


def _depth(change):
    """Replaces rasters by change(raster)."""

    def changed(row, base):
        raster = np.ascontiguousarray(change(decode_png16(row["depth"][0])))
        return {**row, "depth": encode_png16(raster.astype(np.uint16))}

    return changed


def _affine(raster, *matrix):
    size = raster.shape[::-1]
    return cv2.warpAffine(raster, np.float64(matrix), size, borderMode=cv2.BORDER_REPLICATE)


def _middle_square(boxes, height, width):
    side = np.array([width, height, width, height])
    start = (side - min(height, width)) / 2
    return (boxes * side - start) / min(height, width)


def _tall_turned(boxes, height, width):
    return boxes[:, [1, 2, 3, 0]] * [1, -1, 1, -1] + [0, 1, 0, 1] if height > width else boxes


PLANTED_BOXES = {
    "with x and y swapped": lambda b, h, w: b[:, [1, 0, 3, 2]],
    "as shares of the padded square": lambda b, h, w: b * [w, h, w, h] / max(h, w),
    "corrected for padding once too often": lambda b, h, w: b / [w, h, w, h] * max(h, w),
    "as shares of the square in the middle": _middle_square,
    "turned by 180 degrees": lambda b, h, w: 1 - b[:, [2, 3, 0, 1]],
    "turned by a quarter": lambda b, h, w: b[:, [1, 2, 3, 0]] * [1, -1, 1, -1] + [0, 1, 0, 1],
    "mirrored": lambda b, h, w: b[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0],
    "upside down": lambda b, h, w: b[:, [0, 3, 2, 1]] * [1, -1, 1, -1] + [0, 1, 0, 1],
    "as x, y, width, height": lambda b, h, w: np.c_[b[:, :2], b[:, 2:] - b[:, :2]],
    "as centre and size": lambda b, h, w: np.c_[(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]],
    "shifted": lambda b, h, w: b + np.array([0.04, 0, 0.04, 0]),
    "scaled": lambda b, h, w: b * 0.9,
}

PLANTED_DEPTH = {
    "depth turned by 180 degrees": lambda d: d[::-1, ::-1],
    "depth mirrored": lambda d: d[:, ::-1],
    "depth upside down": lambda d: d[::-1],
    "depth shifted": lambda d: _affine(d, (1, 0, 0.05 * d.shape[1]), (0, 1, 0)),
    "depth scaled": lambda d: _affine(d, (1.1, 0, 0), (0, 1.1, 0)),
    "depth where disparity belongs": lambda d: 65535 - d,
    "depth cut off at an end": lambda d: np.minimum(d.astype(int) * 4, 65535),
    "depth that is not scaled": lambda d: d // 2 + 1000,
}


@pytest.mark.parametrize("bits", [8, 10])
def test_depth_in_fewer_bits_passes(planted, bits):
    """Experts leave the lower bits 0; a user's maps may be PNGs of eight bits."""
    step = 2 ** (16 - bits)
    assert _kinds(planted(DEPTH, _depth(lambda d: d // step * step))) == []


def test_sound_labels_pass(scenes, capsys):
    assert verify.main([str(scenes[0]), "--workers", "1"]) == 0
    assert "not compared" not in capsys.readouterr().out


@pytest.mark.parametrize("mistake", PLANTED_BOXES)
def test_mistakes_with_boxes(planted, mistake):
    assert _kinds(planted(BOXES, _boxes(PLANTED_BOXES[mistake]))) == [f"boxes {mistake}"]


@pytest.mark.parametrize("kind", PLANTED_DEPTH)
def test_mistakes_with_depth(planted, kind):
    assert _kinds(planted(DEPTH, _depth(PLANTED_DEPTH[kind]))) == [kind]


def test_the_sign_of_depth_with_boxes_beside(planted):
    path = planted(DEPTH, _depth(lambda raster: 65535 - raster), [BOXES])
    (fault,) = label_checks.check(path, _SCENES, 1).faults
    assert fault.kind == "depth where disparity belongs"
    assert "inside of boxes less around -" in fault.where


def test_a_mistake_in_tall_images_alone(planted):
    (fault,) = label_checks.check(planted(BOXES, _boxes(_tall_turned)), _SCENES, 1).faults
    assert fault.kind == "boxes turned by a quarter" and "tall images" in fault.where


@pytest.mark.parametrize(("sidecar", "what"), [(BOXES, "boxes"), (DEPTH, "depth")])
@pytest.mark.parametrize("offset", [1, -1])
def test_labels_of_the_next_row(scenes, planted, sidecar, what, offset):
    rows = iter(scenes[1][sidecar][offset:] + scenes[1][sidecar][:offset])
    path = planted(sidecar, lambda row, base: {**next(rows), "key": row["key"]})
    assert _kinds(path) == [f"{what} of another row"]


def test_phrases_with_a_prompt(planted):
    path = planted(
        BOXES,
        lambda row, base: {
            **row,
            "phrases": [b"a photo of " + phrase for phrase in row["phrases"]],
        },
    )
    (fault,) = label_checks.check(path, _SCENES, 1).faults
    assert fault.kind == "phrases with a prompt" and "'a photo of " in fault.where


def test_regions_that_repeat(planted):
    path = planted(
        BOXES,
        lambda row, base: {
            **row,
            "boxes": np.tile(row["boxes"], 2),
            "phrases": row["phrases"] * 2,
            "scores": np.tile(row["scores"], 2),
        },
    )
    assert _kinds(path) == ["regions that repeat"]


@pytest.mark.parametrize(
    ("scores", "kind"),
    [
        (lambda row: row["scores"] * 90, "scores outside (0, 1]"),
        (lambda row: row["scores"] * 0, "scores outside (0, 1]"),
        (lambda row: np.arange(1, 1 + len(row["scores"])) / 10, "scores not in falling order"),
    ],
)
def test_scores(planted, capsys, scores, kind):
    path = planted(BOXES, lambda row, base: {**row, "scores": scores(row)})
    assert verify.main([str(path), "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert [line.split(":")[0] for line in printed.splitlines() if line[0] != " "][1:-1] == [kind]


def test_more_labels_than_are_read(planted, capsys):
    path = planted(
        BOXES,
        lambda row, base: {
            **row,
            "boxes": np.linspace([0, 0, 0.5, 0.5], [0.4, 0.4, 1, 1], 21).ravel(),
            "phrases": [f"thing {number}" for number in range(21)],
            "scores": np.ones(21),
        },
    )
    assert verify.main([str(path), "--workers", "1", "--label_rows", "0"]) == 1
    assert f"more labels than are read: {_SCENES}\n" in capsys.readouterr().out


def _random_boxes(rng):
    def boxes(given, height, width):
        corners = np.sort(rng.uniform(0, 1, (len(given), 2, 2)), axis=1)
        return corners.reshape(-1, 4)

    return boxes


def _same_boxes(rng):
    """Beside where things tend to be, whatever the picture."""
    return lambda given, height, width: (
        np.array([0.29, 0.16, 0.81, 0.76]) + rng.uniform(-0.02, 0.02, given.shape)
    )


@pytest.mark.parametrize("maker", [_random_boxes, _same_boxes])
@pytest.mark.parametrize("seed", range(2))
def test_boxes_that_know_nothing_pass(planted, maker, seed):
    assert _kinds(planted(BOXES, _boxes(maker(np.random.default_rng(seed))))) == []


@pytest.mark.parametrize("slope", [0.0, -1.0])
def test_depth_that_knows_nothing_passes(planted, slope):
    rng = np.random.default_rng(0)

    def change(raster):
        noise = cv2.resize(rng.uniform(0, 1, (8, 8)), raster.shape[::-1])
        noise = noise + slope * np.linspace(0, 1, len(raster))[:, None]
        return (noise - noise.min()) / (noise.max() - noise.min()) * 65535

    assert _kinds(planted(DEPTH, _depth(change))) == []


@pytest.mark.parametrize("seed", range(3))
def test_depth_of_an_untrained_network_passes(planted, seed):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(8, 5, 5)), rng.normal(size=(8, 9, 9))

    def change(row, base):
        gray = cv2.resize(decode_image(base["image"][0])[:, :, 1] / 127 - 1, (64, 64))
        hidden = [np.maximum(cv2.filter2D(gray, -1, kernel), 0) for kernel in first]
        found = sum(map(lambda h, kernel: cv2.filter2D(h, -1, kernel), hidden, second))
        codes = cv2.normalize(found, None, 0, 65535, cv2.NORM_MINMAX)
        return {**row, "depth": encode_png16(np.round(codes).astype(np.uint16))}

    assert _kinds(planted(DEPTH, change)) == []


@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_boxes_drawn_tight_or_loose_pass(planted, factor):
    def change(boxes, height, width):
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        return np.c_[middle - factor * half, middle + factor * half]

    assert _kinds(planted(BOXES, _boxes(change))) == []


def test_few_labels_are_not_judged(scenes, planted, capsys):
    swap = _boxes(PLANTED_BOXES["with x and y swapped"])
    first = {row["key"][0] for row in scenes[1][BOXES][:99]}
    path = planted(
        BOXES, lambda row, base: swap(row, base) if row["key"][0] in first else {"key": row["key"]}
    )
    assert verify.main([str(path), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert (
        "not compared with the pictures: regions_v1 boxes, 99 labelled rows (want 100)" in printed
    )


@pytest.mark.parametrize("boxes", [[np.nan] * 4, [0.5] * 3, [b"box"], [3.0, 3.0, 9.0, 9.0]])
def test_broken_boxes_are_left_to_the_contract(planted, capsys, boxes):
    other = {"boxes": boxes, "phrases": ["a"], "scores": [1.0]}
    path = planted(BOXES, lambda row, base: {**row, **(other if b"1" in row["key"][0] else {})})
    assert verify.main([str(path), "--workers", "1"]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith("columns that break their contract: ")
    assert [line for line in printed[2:] if not line.startswith("  ")] == ["faulty"]


def test_a_fault_is_told_with_its_numbers_and_a_remedy(planted, capsys):
    path = planted(BOXES, _boxes(PLANTED_BOXES["with x and y swapped"]))
    assert verify.main([str(path), "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert "boxes with x and y swapped: 1\n  regions_v1 boxes: they fit the pictures by " in printed
    assert "write x before y" in printed and "rows)" in printed
    assert verify.main([str(path), "--workers", "1", "--label_rows", "0"]) == 0
