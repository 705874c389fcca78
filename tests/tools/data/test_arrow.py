# SPDX-License-Identifier: Apache-2.0
"""Samples out of what `save_to_disk` of `datasets` writes: IPC streams, named by a state.json."""

import json

import pyarrow as pa
import pyarrow.feather
import pytest

from input_pipeline.store import Store
from mtv_jax.core.errors import UserError
from tools.data import arrow, ingest, inputs, sources, tables


def _write(path, columns, rows_at_once=1000):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        for batch in table.to_batches(max_chunksize=rows_at_once):
            writer.write_batch(batch)
    return path


def _save(folder, shards):
    """A folder of `save_to_disk` with these columns in its shards."""
    names = [f"data-{shard:05}-of-{len(shards):05}.arrow" for shard in range(len(shards))]
    for name, columns in zip(names, shards, strict=True):
        _write(folder / name, columns)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text('{"features": {"image": {"_type": "Image"}}}')
    return folder


def _images(*contents):
    return [{"bytes": content, "path": None} for content in contents]


def _names(folder, **options):
    return [part.name for part in inputs.find(str(folder), sources.Options(**options)).parts]


def _read(path):
    found = []
    try:
        found += arrow.ArrowPart("x", path, sources.Options()).samples()
    except sources.BrokenPart as broken:
        return found, str(broken)
    return found, ""


def test_a_saved_data_set(tmp_path, picture, encoded):
    def shard(first):
        images = _images(*(encoded(picture(seed=first + row)) for row in range(3)))
        return {"image": images, "caption": [f"caption {first + row}" for row in range(3)]}

    folder = _save(tmp_path / "in", [shard(0), shard(10)])
    _write(folder / "cache-0123.arrow", {"indices": [1, 2]})
    arguments = ["--input", str(folder), "--output", str(tmp_path / "store"), "--min_side", "64"]
    assert ingest.main([*arguments, "--workers", "1"]) == 0
    opened = Store.open(tmp_path / "store")
    assert opened.shard_rows == (3, 3)
    row = opened.read(1, 2, ["caption", "image"])
    assert row["key"] == [b"data-00001-of-00002/00000002"]
    assert row["caption"] == [b"caption 12"] and row["image"] == [encoded(picture(seed=12))]


def test_splits_are_folders(tmp_path):
    for split in ("train", "odd"):
        _save(tmp_path / "in" / split, [{"image": _images(b"1")}])
    (tmp_path / "in/dataset_dict.json").write_text('{"splits": ["train", "odd"]}')
    (part,) = inputs.find(str(tmp_path / "in"), sources.Options()).parts
    assert part.path.parent.name == "train"
    (part,) = inputs.find(str(tmp_path / "in"), sources.Options(split="odd")).parts
    assert part.path.parent.name == "odd"
    with pytest.raises(UserError, match="no split 'test'"):
        _names(tmp_path / "in", split="test")


def test_arrow_files_without_a_state_are_all_read(tmp_path):
    for name in ("b", "a"):
        _write(tmp_path / f"{name}.arrow", {"image": _images(b"1")})
    assert _names(tmp_path) == ["a", "b"]


def test_few_rows_at_once(tmp_path):
    path = _write(tmp_path / "a.arrow", {"image": _images(*[b"1"] * 50), "caption": ["x"] * 50})
    part = arrow.ArrowPart("x", path, sources.Options())
    pieces = list(part.pieces(["image"]))
    assert sum(piece.num_rows for piece in pieces) == 50
    assert max(piece.num_rows for piece in pieces) <= tables.ROWS_AT_ONCE
    assert pieces[0].schema.names == ["image"]
    assert part.survey().samples == 50


def test_a_stream_that_breaks_off_keeps_what_came_before(tmp_path):
    images = _images(*(bytes([row]) * 400 for row in range(6)))
    path = _write(tmp_path / "a.arrow", {"image": images}, rows_at_once=2)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(bytes([5]) * 400)])
    samples, broken = _read(path)
    assert [sample.image[0] for sample in samples] == [0, 1, 2, 3]
    assert broken.startswith("breaks off after row 4 (")
    assert arrow.ArrowPart("x", path, sources.Options()).survey().samples == 4


def test_offsets_that_lead_astray_are_damage(tmp_path):
    """They would be read as images from anywhere in memory."""
    columns = {"image": [bytes([row]) * 77 for row in range(4)]}
    path = _write(tmp_path / "a.arrow", columns, rows_at_once=2)
    data = path.read_bytes()
    offsets = data.index(b"".join(end.to_bytes(4, "little") for end in (0, 77, 154)))
    path.write_bytes(data[: offsets + 7] + b"\x7f" + data[offsets + 8 :])
    samples, broken = _read(path)
    assert [sample.refusal for sample in samples] == ["unreadable", "unreadable", "", ""]
    assert broken.startswith("rows 0 to 1: ")


def test_files_that_are_no_streams(tmp_path):
    pyarrow.feather.write_feather(pa.table({"image": [b"1"]}), str(tmp_path / "a.arrow"))
    with pytest.raises(UserError, match=r"a\.arrow cannot be read \(an Arrow file, not a stream"):
        _names(tmp_path)
    (tmp_path / "a.arrow").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.arrow cannot be read \("):
        _names(tmp_path)
