# SPDX-License-Identifier: Apache-2.0
"""Every kind of fault is found, counted and named."""

import numpy as np
import pytest

from input_pipeline import decode, store, tfrecord
from mtv_jax.core.fields import BOXES, CAPTION, DEPTH, IMAGE, PHRASES, SCORES, Field
from tools.data import verify

_SIZE = (Field(name="height", dtype="int32"), Field(name="width", dtype="int32"))
_POINTS = Field(name="points", shape="p 2", geometry="points", pad_to=4)
_COUNT = Field(name="count", dtype="uint8")
_ROWS = 4


def _base(picture, encoded, shard, row):
    return {
        "key": f"{shard}/{row}",
        "image": encoded(picture(48, 40, seed=row)),
        "caption": f"caption {row}",
        "height": 40,
        "width": 48,
    }


def _labels(shard, row):
    return {
        "key": f"{shard}/{row}",
        "boxes": np.array([[0, 0, 0.5, 0.5], [0.25, 0.5, 1, 1]]),
        "phrases": ["a cat", "a dog"],
        "scores": [1.0, 0.5],
        "points": [0.0, 1.0],
        "count": 2,
        "depth": decode.encode_png16(np.full((20, 24), row * 1000, np.uint16)),
    }


def _write(path, prefix, rows_of):
    for shard in range(2):
        store.write_shard(path, prefix, shard, [rows_of(shard, row) for row in range(_ROWS)])


@pytest.fixture
def path(tmp_path, picture, encoded):
    """A sound store with a sidecar that has every geometry."""
    path = tmp_path / "made"
    _write(path, store.BASE, lambda shard, row: _base(picture, encoded, shard, row))
    store.finish_store(path, "made", [IMAGE, CAPTION, *_SIZE], {})
    _write(path, "labels_v1", _labels)
    store.finish_sidecar(path, "labels_v1", [BOXES, PHRASES, SCORES, _POINTS, _COUNT, DEPTH], {})
    store.write_selection(path, "some", np.array([1, 5]))
    return path


def _check(path, capsys, workers="1"):
    """Exit status and what was printed."""
    status = verify.main([str(path), "--workers", workers])
    return status, capsys.readouterr().out


def _rewrite(path, prefix, shard, row, changes):
    """Replaces columns of one row of a shard; None removes a column."""
    opened = store.Store.open(path, ["labels_v1"])
    records = opened.records(prefix, shard)
    rows = [store.example.decode(records[number]) for number in range(len(records))]
    rows[row] = {k: v for k, v in (rows[row] | changes).items() if v is not None}
    with tfrecord.RecordWriter(store.shard_path(path, prefix, shard)) as writer:
        for columns in rows:
            writer.write(store.example.encode(columns))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_sound_store_is_sound(path, capsys, workers):
    status, printed = _check(path, capsys, workers)
    assert status == 0
    assert "8 rows in 2 shards, sidecars: labels_v1" in printed
    assert printed.endswith("sound\n")


def test_rows_without_labels_are_sound(path, capsys):
    _write(path, "labels_v1", lambda shard, row: {"key": f"{shard}/{row}"})
    assert _check(path, capsys)[0] == 0


def test_a_column_that_breaks_its_contract_is_placed(path, capsys):
    _rewrite(path, "labels_v1", 1, 2, {"points": [0.5, 1.5]})
    status, printed = _check(path, capsys)
    assert status == 1
    assert "columns that break their contract: 1\n" in printed
    assert "labels_v1 shard 1 row 2 (1/2): points leaves [0, 1]\n" in printed


@pytest.mark.parametrize(
    ("prefix", "changes", "kind", "fault"),
    [
        ("images", {"image": b"x"}, "rasters that do not decode", "not an image"),
        ("labels_v1", {"depth": b"x"}, "rasters that do not decode", "not an image"),
        ("images", {"height": 41}, "rasters of another size", "is 40x48, the record says 41x48"),
        ("images", {"width": None}, "records without height and width", ""),
        ("images", {"key": None}, "records without a key", "images shard 0 row 1"),
        ("images", {"key": b"0/0"}, "keys used before", "images shard 0 row 1 (0/0)"),
        (
            "labels_v1",
            {"key": b"0/0"},
            "keys differ from the base",
            "labels_v1 shard 0 row 1 (0/0)",
        ),
    ],
)
def test_records_against_each_other(path, capsys, prefix, changes, kind, fault):
    _rewrite(path, prefix, 0, 1, changes)
    status, printed = _check(path, capsys)
    assert status == 1
    assert f"{kind}: 1\n" in printed or (
        kind == "rasters of another size" and f"{kind}: " in printed
    )
    assert fault in printed


@pytest.mark.parametrize(
    ("prefix", "changes", "fault"),
    [
        ("images", {"height": b"forty"}, "height holds bytes, not numbers"),
        ("images", {"height": []}, "height is empty"),
        ("images", {"image": [1, 2]}, "image holds numbers, not bytes"),
        ("labels_v1", {"depth": [0.5, 1.0]}, "depth holds numbers, not bytes"),
        ("images", {"key": [5, 6]}, "images shard 0 row 1"),
        ("labels_v1", {"key": [5, 6]}, "labels_v1 shard 0 row 1"),
    ],
)
def test_columns_of_another_type(path, capsys, prefix, changes, fault):
    _rewrite(path, prefix, 0, 1, changes)
    status, printed = _check(path, capsys)
    assert status == 1 and fault in printed


def test_depth_of_another_aspect_is_found(path, capsys):
    turned = decode.encode_png16(np.zeros((24, 20), np.uint16))
    _rewrite(path, "labels_v1", 0, 0, {"depth": turned})
    status, printed = _check(path, capsys)
    assert status == 1
    assert "depth is 24x20, the record says 40x48" in printed


def test_flipped_byte(path, capsys):
    file = store.shard_path(path, "labels_v1", 1)
    data = bytearray(file.read_bytes())
    start = int(np.load(tfrecord.index_path(file))[2])
    data[start + 40] ^= 1
    file.write_bytes(data)
    status, printed = _check(path, capsys)
    assert status == 1
    assert "unreadable records: 1\n" in printed
    assert f"labels_v1-00001.tfrecord: row 2 at byte {start}: payload checksum" in printed


@pytest.mark.parametrize("prefix", ["images", "labels_v1"])
@pytest.mark.parametrize("damage", ["gone", "folder", "cut", "short"])
def test_damaged_shards(path, capsys, prefix, damage):
    file = store.shard_path(path, prefix, 1)
    if damage == "gone":
        file.unlink()
    elif damage == "folder":  # opens but cannot be read
        file.unlink()
        file.mkdir()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-10])
    else:
        store.write_shard(path, prefix, 1, [{"key": f"1/{row}"} for row in range(_ROWS - 1)])
    status, printed = _check(path, capsys)
    unread = damage in ("gone", "folder")
    kind = "shards that cannot be read" if unread else "shards or indexes that do not fit"
    assert status == 1
    assert f"{kind}: 1\n" in printed and file.name in printed


def test_index_that_lies(path, capsys):
    index = tfrecord.index_path(store.shard_path(path, "images", 0))
    offsets = np.load(index)
    offsets[2] += 1
    with open(index, "wb") as file:
        np.save(file, offsets)
    status, printed = _check(path, capsys)
    assert status == 1
    assert "images-00000.tfrecord.index: delete it" in printed


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([1, 99], "selections that cannot be used"),
        ([5, 1], "selections not sorted"),
        ([], "selections that cannot be used"),
    ],
)
def test_selections(path, capsys, rows, kind):
    np.save(path / "selections" / "bad.npy", np.array(rows, np.uint64))
    if not rows:
        (path / "selections" / "bad.npy").write_bytes(b"")
    status, printed = _check(path, capsys)
    assert status == 1
    assert f"{kind}: 1\n" in printed and "bad.npy" in printed


def test_counts_all_and_shows_the_first(path, capsys):
    _write(path, "labels_v1", lambda shard, row: {"key": f"{shard}/{row}", "count": 300})
    printed = _check(path, capsys)[1]
    assert "columns that break their contract: 8\n" in printed
    assert printed.count("count overflows") == 5


@pytest.mark.parametrize("manifest", ["store.json", "labels_v1.json"])
def test_a_damaged_manifest_is_one_line(path, capsys, manifest):
    (path / manifest).write_bytes(b"{")
    assert verify.main([str(path), "--workers", "1"]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {path / manifest} cannot be read") and errors.count("\n") == 1


def test_no_store_is_one_line(tmp_path, capsys):
    assert verify.main([str(tmp_path / "absent")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: the store") and errors.count("\n") == 1
