# SPDX-License-Identifier: Apache-2.0
"""Samples out of parquet files, as img2dataset and Hugging Face write them."""

import json
import math

import pyarrow as pa
import pyarrow.parquet
import pytest

from input_pipeline.store import Store
from mtv_jax.core.errors import UserError
from tools.data import ingest, inputs, parquet, sources, tables, verify
from tools.data.upstream import LostRow


def _write(path, columns, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pyarrow.parquet.write_table(table, path, **options)
    return path


def _read(path, **options):
    """Samples and lost rows, and what the break says."""
    found = []
    try:
        found += parquet.ParquetPart("x", path, sources.Options(**options)).samples()
    except sources.BrokenPart as broken:
        return found, str(broken)
    return found, ""


def _ingest(source, output, *options):
    arguments = ["--input", str(source), "--output", str(output), "--min_side", "64"]
    return ingest.main([*arguments, "--workers", "1", *options])


def _rows(output):
    """Every row of a store by key."""
    opened = Store.open(output)
    rows = [opened.read(*opened.locate(row), opened.fields) for row in range(opened.num_rows)]
    return {row["key"][0].decode(): row for row in rows}


def _summary(output):
    return json.loads((output / "funnel.json").read_text())


def _downloaded(picture, encoded, first=0, count=4):
    """The columns of img2dataset: the second row failed."""
    rows = range(first, first + count)
    failed = first + 1
    return {
        "key": [f"{row:09}" for row in rows],
        "jpg": [None if row == failed else encoded(picture(seed=row)) for row in rows],
        "caption": [f"caption {row}" for row in rows],
        "status": ["failed_to_download" if row == failed else "success" for row in rows],
        "error_message": ["404" if row == failed else None for row in rows],
        "width": [96] * count,
        "original_width": [960] * count,
        "exif": ["{}"] * count,
    }


def test_what_img2dataset_writes(tmp_path, picture, encoded, capsys):
    for shard in range(2):
        columns = _downloaded(picture, encoded, 10 * shard)
        columns["punsafe"] = [0.25, 0.5, math.nan, None]
        columns["NSFW"] = ["UNLIKELY", "NSFW", None, "<b>UNSURE</b>"]
        _write(tmp_path / f"in/{shard:05}.parquet", columns)
    output = tmp_path / "store"
    assert _ingest(tmp_path / "in", output) == 0
    assert Store.open(output).shard_rows == (3, 3)
    rows = _rows(output)
    assert list(rows) == [f"{row:09}" for row in (0, 2, 3, 10, 12, 13)]
    assert rows["000000010"]["caption"] == [b"caption 10"]
    assert rows["000000010"]["image"] == [encoded(picture(seed=10))]
    assert rows["000000010"]["width"].item() == 96
    assert rows["000000000"]["punsafe"].item() == 0.25
    assert "punsafe" not in rows["000000002"] and "punsafe" not in rows["000000003"]
    assert rows["000000003"]["nsfw"] == [b"UNSURE"] and "nsfw" not in rows["000000002"]
    summary = _summary(output)
    assert summary["failed_upstream"] == {"failed_to_download": 2}
    assert summary["columns"] == {"nsfw": 4, "punsafe": 2}
    assert '"key":"000000011"' in (output / "upstream-00001.jsonl").read_text()
    assert "original_width" not in Store.open(output).fields
    assert "  punsafe" in capsys.readouterr().out
    assert verify.main([str(output), "--workers", "1"]) == 0


def test_what_hugging_face_holds(tmp_path, picture, encoded):
    images = [{"bytes": encoded(picture(seed=row), "PNG"), "path": "a.png"} for row in range(3)]
    captions = [["first", "second"], [], ["third"]]
    for shard in range(2):
        name = f"train-{shard:05}-of-00002.parquet"
        _write(tmp_path / "in/data" / name, {"image": images, "text": captions})
    (tmp_path / "in/README.md").write_text("")
    assert _ingest(tmp_path / "in", tmp_path / "store") == 0
    rows = _rows(tmp_path / "store")
    assert list(rows)[:3] == [f"train-00000-of-00002/0000000{row}" for row in range(3)]
    assert len(rows) == 6
    assert rows["train-00001-of-00002/00000002"]["caption"] == [b"third"]
    assert "caption" not in rows["train-00001-of-00002/00000001"]
    assert _summary(tmp_path / "store")["changes"] == {"from_png": 6}


def test_splits_are_not_mixed(tmp_path, capsys):
    columns = {"image": [b"1"]}
    for name in ("train-00000-of-00001", "test-00000-of-00001", "sub/validation", "dev/0000"):
        _write(tmp_path / f"{name}.parquet", columns)

    def names(pattern="", **options):
        found = inputs.find(f"{tmp_path}{pattern}", sources.Options(**options))
        return [part.name for part in found.parts]

    assert names() == ["train-00000-of-00001"]
    assert "reading the split train, leaving dev, test, validation" in capsys.readouterr().err
    assert names(split="test") == ["test-00000-of-00001"]
    assert names(split="validation") == ["validation"] and names(split="dev") == ["0000"]
    assert names("/test-*") == ["test-00000-of-00001"]
    with pytest.raises(UserError, match=r"no split 'val' \(it has: dev, test, train, validation\)"):
        names(split="val")
    _write(tmp_path / "more/test/00000.parquet", columns)
    _write(tmp_path / "more/00001.parquet", columns)
    with pytest.raises(UserError, match=r"no split 'train' \(it has: test\)"):
        names("/more")


def test_captions_of_every_type():
    schema = {
        "a": (pa.string(), "x"),
        "b": (pa.large_string(), "x"),
        "c": (pa.dictionary(pa.int32(), pa.string()), "x"),
        "d": (pa.list_(pa.string()), ["x", "y"]),
        "e": (pa.large_list(pa.large_string()), ["x", "y"]),
        "f": (pa.string_view(), "x"),
        "g": (pa.binary(), b"x"),
    }
    for name, (column, value) in schema.items():
        array = pa.array([value, None], column)
        assert tables._values(array) == [b"x", None], name


def test_columns_are_chosen_by_name(tmp_path):
    columns = {"jpg": [b"1"], "Title": ["a"], "TEXT": ["b"], "other": ["c"], "label": [3]}
    path = _write(tmp_path / "0.parquet", columns)
    assert _read(path)[0][0].text == b"b"
    assert _read(path, caption_column="OTHER")[0][0].text == b"c"
    assert "has no column nothing (it has: jpg, " in _read(path, caption_column="nothing")[1]
    assert "holds int64 in label, not text" in _read(path, caption_column="label")[1]
    samples = _read(_write(path, {"photo": [b"1"], "caption": [7]}))[0]
    assert samples == [sources.Sample("00000000", b"1")]
    assert "no column of encoded images" in _read(_write(path, {"a": [b"1"], "b": [b"2"]}))[1]


@pytest.mark.parametrize("case", ["no_images", "no_caption_column", "none_opens"])
def test_tables_that_cannot_be_used_get_one_line(tmp_path, capsys, case):
    path = _write(tmp_path / "in/0.parquet", {"URL": ["x"]})
    options, expected = [], "no column of encoded images (it has: URL); URLs are downloaded with"
    if case == "no_caption_column":
        _write(path, {"jpg": [b"1"]})
        options, expected = ["--caption_column", "words"], "has no column words (it has: jpg)"
    if case == "none_opens":
        path.write_bytes(b"PAR1 no")
        expected = "cannot be read (Parquet"
    assert _ingest(tmp_path / "in", tmp_path / "store", *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error") and expected in line


def test_rows_that_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_IMAGE_BYTES", 10)
    monkeypatch.setattr(sources, "MAX_TEXT_BYTES", 5)
    good, text = b"1234567890", "12345"
    rows = [
        ("a", good, text, ""),
        ("b", None, text, "no_image"),
        ("c", good + b"x", text, "oversize_member"),
        ("d", good, text + "x", "oversize_member"),
        ("a", good, text, "duplicate_key"),
        (None, good, None, ""),
    ]
    keys, images, texts, refusals = map(list, zip(*rows, strict=True))
    structs = [{"bytes": image, "path": "p"} for image in images]
    path = _write(tmp_path / "0.parquet", {"key": keys, "image": structs, "text": texts})
    samples, broken = _read(path)
    assert [sample.refusal for sample in samples] == list(refusals) and not broken
    assert [sample.key for sample in samples] == ["a", "b", "c", "d", "a", "00000005"]
    assert samples[4].image == b""


def test_a_status_that_is_no_download_is_not_one(tmp_path):
    path = _write(tmp_path / "0.parquet", {"jpg": [b"1"], "status": ["new"]})
    assert [type(found) for found in _read(path)[0]] == [sources.Sample]
    path = _write(path, {"jpg": [b"1"], "status": [None], "error_message": [None]})
    assert _read(path)[0] == [LostRow("00000000", "unknown", None)]


def test_captions_that_are_not_utf8(tmp_path, picture, encoded):
    offsets = pa.py_buffer(b"\0\0\0\0\4\0\0\0")
    latin = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"\xcele "))
    columns = pa.table([pa.array([encoded(picture())]), latin], ["jpg", "caption"])
    _write(tmp_path / "in/0.parquet", columns)
    assert _ingest(tmp_path / "in", tmp_path / "store") == 0
    assert _rows(tmp_path / "store")["00000000"]["caption"] == ["Île".encode()]


def _damaged(path, columns, row):
    """A file of groups of two rows; the image of `row` has a flipped bit."""
    options = {"row_group_size": 2, "write_page_checksum": True, "use_dictionary": False}
    _write(path, columns, compression="none", write_statistics=False, **options)
    data = bytearray(path.read_bytes())
    data[data.index(columns["jpg"][row]) + 40] ^= 1
    path.write_bytes(data)
    return path


def test_a_damaged_group_is_passed_over(tmp_path, picture, encoded, capsys):
    columns = {"key": list("abcdef"), "jpg": [encoded(picture(seed=row)) for row in range(6)]}
    path = _damaged(tmp_path / "in/00000.parquet", columns, row=3)
    samples, broken = _read(path)
    assert [sample.key for sample in samples] == ["a", "b", "row 2", "row 3", "e", "f"]
    assert [sample.refusal for sample in samples] == ["", "", "unreadable", "unreadable", "", ""]
    assert broken.startswith("rows 2 to 3: could not verify page integrity")
    output = tmp_path / "store"
    assert _ingest(tmp_path / "in", output) == 2
    errors = capsys.readouterr().err
    assert "00000: rows 2 to 3" in errors and "1 of the input files are damaged" in errors
    assert list(_rows(output)) == ["a", "b", "e", "f"]
    assert _summary(output)["rejected_by_reason"] == {"unreadable": 2}
    before = {path: path.read_bytes() for path in output.iterdir()}
    (output / "store.json").unlink()
    assert _ingest(tmp_path / "in", output, "--allow_broken") == 0, "a resumed one"
    assert {path: path.read_bytes() for path in output.iterdir()} == before


def test_a_file_that_cannot_be_opened_is_a_broken_part(tmp_path, picture, encoded):
    columns = _downloaded(picture, encoded)
    _write(tmp_path / "in/00000.parquet", columns)
    cut = _write(tmp_path / "in/00001.parquet", columns)
    cut.write_bytes(cut.read_bytes()[:-9])
    _write(tmp_path / "in/00002.parquet", {"url": ["x"]})
    output = tmp_path / "store"
    assert _ingest(tmp_path / "in", output) == 2
    assert Store.open(output).shard_rows == (3, 0, 0)
    broken = _summary(output)["broken_archives"]
    assert "magic bytes" in broken["00001"]
    assert broken["00002"].startswith("has no column of encoded images")
    assert verify.main([str(output), "--workers", "1"]) == 0


def test_few_rows_are_in_memory_at_once(tmp_path):
    count = 3 * tables.ROWS_AT_ONCE + 1
    path = _write(tmp_path / "0.parquet", {"jpg": [b"x"] * count})
    part = parquet.ParquetPart("x", path, sources.Options())
    sizes = [piece.num_rows for piece in part.pieces(["jpg"])]
    assert sum(sizes) == count and max(sizes) <= tables.ROWS_AT_ONCE
    assert part.survey().samples == count


def test_the_survey_counts_what_comes(tmp_path, picture, encoded):
    path = _write(tmp_path / "0.parquet", _downloaded(picture, encoded))
    part = parquet.ParquetPart("x", path, sources.Options())
    survey = part.survey()
    assert survey.samples == 3 == len(set(survey.key_hashes))
    assert list(survey.key_hashes) != list(sources.hash_keys(["x", "y", "z"]))
    assert set(survey.key_hashes) == set(sources.hash_keys(f"{row:09}" for row in (0, 2, 3)))


def test_columns_of_scores_do_not_depend_on_the_workers(tmp_path, picture, encoded):
    """The first shard lacks the column that the second brings."""
    for shard, more in enumerate([{}, {"PWATERMARK": [0.5] * 4, "blur": [1, 2, None, 4]}]):
        columns = _downloaded(picture, encoded, 10 * shard) | more
        _write(tmp_path / f"in/{shard:05}.parquet", columns)
    stores = [tmp_path / f"by_{workers}" for workers in (1, 2)]
    for workers, output in enumerate(stores, 1):
        options = ["--name", "same", "--keep_columns", "Blur,absent", "--workers", str(workers)]
        assert _ingest(tmp_path / "in", output, *options) == 0
    contents = [{p.name: p.read_bytes() for p in store.iterdir()} for store in stores]
    assert contents[0] == contents[1]
    fields = Store.open(stores[0]).fields
    assert [(name, fields[name].dtype) for name in list(fields)[4:]] == [
        ("pwatermark", "float32"),
        ("blur", "float32"),
    ]
    rows = _rows(stores[0])
    assert rows["000000013"]["blur"].dtype == "float32" and rows["000000013"]["blur"].item() == 4
    assert "blur" not in rows["000000012"] and "blur" not in rows["000000003"]
