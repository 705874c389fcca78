# SPDX-License-Identifier: Apache-2.0
"""The contact sheet shows what is there, where it is."""

import numpy as np
import pytest
from PIL import Image

from input_pipeline import decode, store
from mtv_jax.core.fields import BOXES, CAPTION, DEPTH, IMAGE, PHRASES, Field
from tools.data import inspect

_POINTS = Field(name="points", shape="p 2", geometry="points", pad_to=4)
_PARTS = Field(
    name="parts", shape="h w", dtype="uint16", geometry="raster", resample="nearest", codec="png16"
)
_GAP, _SIDE = 8, 224


@pytest.fixture
def path(tmp_path, encoded):
    """Three gray images; the second one has labels."""
    path = tmp_path / "made"
    gray = encoded(Image.new("RGB", (64, 64), "#808080"), quality=95)
    long = "a very long caption " * 20
    rows = [{"key": f"k{row}", "image": gray, "caption": long} for row in range(3)]
    store.write_shard(path, store.BASE, 0, rows)
    store.finish_store(path, "made", [IMAGE, CAPTION], {})
    depth = np.tile(np.linspace(0, 60_000, 32).astype(np.uint16), (32, 1))
    labels = {
        "key": "k1",
        "boxes": [0.25, 0.25, 0.75, 0.75],
        "phrases": ["thing"],
        "points": [0.5, 0.5],
        "depth": decode.encode_png16(depth),
        "parts": decode.encode_png16(np.pad(np.full((32, 16), 7, np.uint16), ((0, 0), (16, 0)))),
    }
    store.write_shard(path, "labels_v1", 0, [{"key": "k0"}, labels, {"key": "k2"}])
    store.finish_sidecar(path, "labels_v1", [BOXES, PHRASES, _POINTS, DEPTH, _PARTS], {})
    return path


def _draw(path, tmp_path, *options):
    assert inspect.main([str(path), "--output", str(tmp_path / "sheet.png"), *options]) == 0
    return np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)


def _panel(sheet, number):
    """The picture in panel `number` of the only cell."""
    left = _GAP + number * _SIDE
    return sheet[_GAP : _GAP + _SIDE, left : left + _SIDE]


def test_labels_are_drawn_in_place(path, tmp_path):
    store.write_selection(path, "labelled", np.array([1]))
    sheet = _draw(path, tmp_path, "--selection", "labelled")
    image, depth, parts = (_panel(sheet, number) for number in range(3))
    red = np.array([0xE6, 0x19, 0x4B])
    assert (image[56, 100:168] == red).all() and (image[80:168, 168] == red).all()
    assert (image[112, 112] == red).all()  # the point
    assert (image[40, 40] == image[20, 200]).all() and (image[40, 40] == 0x80).all()
    assert (image[58:68, 58:84] == 255).any()  # the phrase, white on the box's colour
    assert depth[112, 8].argmax() == 2 and depth[112, 215].argmax() == 0  # far blue, near red
    assert (parts[112, 8] == 0).all() and (parts[112, 215] > 0).all()
    below = sheet[_GAP + _SIDE :, _GAP:-_GAP]
    assert (below == 0).any()  # the caption


def test_sheet_has_a_cell_a_row_and_a_panel_a_raster(path, tmp_path):
    one = _draw(path, tmp_path, "--rows", "1", "--sidecars", "")
    assert one.shape[1] == _SIDE + 2 * _GAP
    labelled = _draw(path, tmp_path, "--rows", "1")
    assert labelled.shape[1] == 3 * _SIDE + 2 * _GAP
    many = _draw(path, tmp_path, "--rows", "99", "--sidecars", "")
    assert many.shape[0] * many.shape[1] > 2.5 * one.shape[0] * one.shape[1]


@pytest.mark.parametrize("damage", ["record", "image", "shard"])
def test_a_bad_record_gets_a_cell_that_says_so(path, tmp_path, damage):
    shard = store.shard_path(path, store.BASE, 0)
    opened = store.Store.open(path)
    if damage == "image":
        rows = [opened.read(0, row, ["image"]) for row in range(3)]
        store.write_shard(path, store.BASE, 0, [rows[0], {"key": "k1", "image": b"x"}, rows[2]])
    elif damage == "record":
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    else:
        shard.unlink()
    sheet = _draw(path, tmp_path, "--sidecars", "")
    corners = [(_GAP, _GAP), (_GAP, 2 * _GAP + _SIDE), (304, _GAP)]
    cells = [sheet[top : top + _SIDE, left : left + _SIDE] for top, left in corners]
    gray = [bool((cell == 0x80).mean() > 0.9) for cell in cells]
    assert gray == ([False] * 3 if damage == "shard" else [True, False, True])
    assert (cells[1] == 255).mean() > 0.7 and (cells[1][..., 0] > cells[1][..., 1] + 100).any()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--sidecars", "depth_v9"], "no finished sidecar 'depth_v9'"),
        (["--selection", "none"], "no selection 'none'"),
        (["--selection", "empty"], "nothing to draw"),
        (["--output", "/proc/no/sheet.png"], "cannot write"),
    ],
)
def test_bad_use_gets_one_line(path, tmp_path, capsys, options, expected):
    store.write_selection(path, "empty", np.zeros(0, np.uint64))
    arguments = [str(path), "--output", str(tmp_path / "sheet.png"), *options]
    assert inspect.main(arguments) == 2
    errors = capsys.readouterr().err
    assert expected in errors and errors.count("\n") == 1


def test_bytes_are_told_by_holder(path, tmp_path, capsys):
    _draw(path, tmp_path)
    told = capsys.readouterr().out.splitlines()[1:]
    for line, holder in zip(told, ("images", "labels_v1"), strict=True):
        shard = store.shard_path(path, holder, 0)
        size = shard.stat().st_size + shard.with_name(f"{shard.name}.index").stat().st_size
        assert line == f"{holder}: {size / 3:,.0f} bytes a row"
    _draw(path, tmp_path, "--sidecars", "")
    assert "labels_v1" not in capsys.readouterr().out
