# SPDX-License-Identifier: Apache-2.0
"""Manifests, sidecars, selections, and reads that merge them."""

import dataclasses
import json
import multiprocessing
import os
import pickle

import numpy as np
import pytest

from input_pipeline import store
from input_pipeline.store import Location, Store, StoreError
from input_pipeline.tfrecord import RecordError, RecordFile
from mtv_jax.core.fields import BOXES, CAPTION, DEPTH, IMAGE, PHRASES, Field

_SHARD_ROWS = (3, 0, 2)
_SIZE = (Field(name="height", dtype="int32"), Field(name="width", dtype="int32"))


def _key(shard, row):
    return f"{shard}/{row}".encode()


def _base_row(shard, row):
    columns = {"key": _key(shard, row), "image": b"image %d %d" % (shard, row), "height": row + 1}
    return columns | ({} if row == 1 else {"caption": f"caption {shard} {row}"})


def _label_row(shard, row):
    label = {"boxes": np.full((row, 4), row / 4), "phrases": [f"thing {i}" for i in range(row)]}
    return {"key": _key(shard, row), **(label if row else {})}


def _write(path, prefix, make_row, shard_rows=_SHARD_ROWS):
    for shard, rows in enumerate(shard_rows):
        assert (
            store.write_shard(path, prefix, shard, (make_row(shard, r) for r in range(rows)))
            == rows
        )


@pytest.fixture
def path(tmp_path):
    """A store of three shards, the second one empty, with the sidecar `regions_v1`."""
    path = tmp_path / "made"
    _write(path, store.BASE, _base_row)
    store.finish_store(path, "made", [IMAGE, CAPTION, *_SIZE], {"tool": "test"})
    _write(path, "regions_v1", _label_row)
    store.finish_sidecar(path, "regions_v1", [BOXES, PHRASES], {"expert": "none"})
    return path


def test_describes_itself(path):
    opened = Store.open(str(path))
    assert (opened.name, opened.num_rows, opened.shard_rows) == ("made", 5, _SHARD_ROWS)
    assert opened.provenance == {"tool": "test"}
    assert opened.sidecars == ("regions_v1",)
    assert opened.fields == {f.name: f for f in (IMAGE, CAPTION, *_SIZE)}
    with_labels = Store.open(path, ["regions_v1"])
    assert with_labels.fields_of("regions_v1") == (BOXES, PHRASES)
    assert with_labels.fields_of(store.BASE) == (IMAGE, CAPTION, *_SIZE)


def test_global_rows_skip_empty_shards(path):
    opened = Store.open(path)
    located = [opened.locate(row) for row in range(5)]
    assert located == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)]
    assert isinstance(located[0], Location)
    for row in (-1, 5):
        with pytest.raises(IndexError, match=f"no row {row}"):
            opened.locate(row)


def test_merges_base_and_sidecar(path):
    opened = Store.open(path, ["regions_v1"])
    columns = opened.read(0, 2, ["image", "caption", "boxes", "phrases"])
    assert set(columns) == {"key", "image", "caption", "boxes", "phrases"}
    assert columns["key"] == [b"0/2"]
    assert columns["image"] == [b"image 0 2"]
    assert columns["caption"] == [b"caption 0 2"]
    np.testing.assert_array_equal(columns["boxes"], np.full(8, 0.5, np.float32))
    assert columns["phrases"] == [b"thing 0", b"thing 1"]


def test_absent_labels_are_absent_and_the_key_is_always_there(path):
    opened = Store.open(path, ["regions_v1"])
    assert opened.read(0, 0, ["boxes", "height"]).keys() == {"key", "height"}
    assert opened.read(2, 1, ["caption"]) == {"key": [b"2/1"]}
    assert opened.read(2, 0, []) == {"key": [b"2/0"]}


def test_reads_only_the_files_it_needs(path):
    store.shard_path(path, store.BASE, 0).unlink()
    assert Store.open(path, ["regions_v1"]).read(0, 1, ["phrases"])["phrases"] == [b"thing 0"]


def test_unknown_column_names_the_known_ones(path):
    with pytest.raises(KeyError, match=r"no column 'boxes'.*image, caption.*sidecars: regions_v1"):
        Store.open(path).read(0, 0, ["boxes"])


def test_sidecar_of_other_keys_is_noticed(path):
    store.write_shard(path, "regions_v1", 2, [_label_row(2, 1), _label_row(2, 0)])
    with pytest.raises(RecordError, match=r"regions_v1-00002.tfrecord: row 1 has key '?b'2/0'"):
        Store.open(path, ["regions_v1"]).read(2, 1, ["image", "phrases"])


def test_sidecars_with_one_column_in_common_are_opened_one_at_a_time(path):
    _write(path, "regions_v2", _label_row)
    store.finish_sidecar(path, "regions_v2", [BOXES], {})
    with pytest.raises(StoreError, match="'boxes' is in both regions_v1 and regions_v2"):
        Store.open(path, ["regions_v1", "regions_v2"])


@pytest.mark.parametrize("state", ["absent", "empty", "unfinished"])
def test_no_store_says_how_to_make_one(tmp_path, state):
    path = tmp_path / "nothing"
    if state != "absent":
        path.mkdir()
    if state == "unfinished":
        _write(path, store.BASE, _base_row)
    expected = "is incomplete" if state == "unfinished" else "is not there"
    with pytest.raises(StoreError, match=rf"{path} {expected}.*tools.data.ingest") as caught:
        Store.open(path)
    assert "\n" not in str(caught.value)


def test_unfinished_sidecar_does_not_exist(path):
    _write(path, "depth_v1", lambda shard, row: {"key": _key(shard, row)})
    assert Store.open(path).sidecars == ("regions_v1",)
    remedy = r"no finished sidecar 'depth_v1'.*tools.data.depth_maps`.*tools.data.regions`"
    with pytest.raises(StoreError, match=remedy):
        Store.open(path, ["depth_v1"])


def test_format_of_the_future_is_refused(path):
    manifest = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps(manifest | {"format": 2}))
    with pytest.raises(StoreError, match="has format 2"):
        Store.open(path)


@pytest.mark.parametrize("manifest", ["store.json", "regions_v1.json"])
@pytest.mark.parametrize("content", [b"", b'{"format": 1, "na', b"[]", b'{"format": 1}', None])
def test_damaged_manifest_is_named(path, manifest, content):
    (path / manifest).unlink()
    if content is None:
        (path / manifest).mkdir()
    else:
        (path / manifest).write_bytes(content)
    with pytest.raises(StoreError, match=rf"{path / manifest} cannot be read \(.+\)"):
        Store.open(path, ["regions_v1"])


def test_gap_in_the_shards_is_refused(tmp_path):
    _write(tmp_path, store.BASE, _base_row)
    store.shard_path(tmp_path, store.BASE, 1).unlink()
    with pytest.raises(StoreError, match=r"images shards \[1\] are missing"):
        store.finish_store(tmp_path, "x", [IMAGE], {})
    assert not (tmp_path / "store.json").exists()


@pytest.mark.parametrize("shard_rows", [(3, 0), (3, 0, 3), (3, 0, 2, 0)])
def test_sidecar_of_another_shape_is_refused(path, shard_rows):
    _write(path, "depth_v1", lambda shard, row: {"key": _key(shard, row)}, shard_rows)
    with pytest.raises(StoreError, match="write one row per base row"):
        store.finish_sidecar(path, "depth_v1", [DEPTH], {})
    assert not (path / "depth_v1.json").exists()


@pytest.mark.parametrize("name", ["images", "store", "funnel", "a/b", "", "../x"])
def test_bad_sidecar_names_are_refused(path, name):
    with pytest.raises(StoreError, match="cannot name a sidecar"):
        store.finish_sidecar(path, name, [DEPTH], {})


def test_a_row_needs_a_key(tmp_path):
    with pytest.raises(StoreError, match="row 1 of images shard 4 has no key"):
        store.write_shard(tmp_path, store.BASE, 4, [{"key": "a"}, {"image": b""}])
    assert os.listdir(tmp_path) == []


def test_record_without_a_key_is_named(path):
    with store.tfrecord.RecordWriter(store.shard_path(path, store.BASE, 2)) as writer:
        writer.write(store.example.encode({"image": b""}))
        writer.write(b"\x0bno example")
        writer.write(store.example.encode({"key": [5, 6]}))
        writer.write(store.example.encode({"key": []}))
    opened = Store.open(path)
    faults = ["row 0 has no key", "row 1: not an Example", "row 2 has no key", "row 3 has no key"]
    for row, fault in enumerate(faults):
        with pytest.raises(RecordError, match=rf"images-00002.tfrecord: {fault}"):
            opened.read(2, row, ["image"])


def test_selection_is_sorted_unique_and_bounded(path):
    store.write_selection(path, "half", np.array([4, 0, 2, 4]))
    selected = Store.open(path).selection("half")
    assert selected.dtype == np.uint64
    np.testing.assert_array_equal(selected, [0, 2, 4])
    with pytest.raises(StoreError, match="row 5 of a store of 5"):
        store.write_selection(path, "over", np.array([5]))
    with pytest.raises(StoreError, match=r"no selection 'third' \(it has: half\)"):
        Store.open(path).selection("third")


def test_selection_of_another_store_is_refused(path):
    (path / "selections").mkdir()
    np.save(path / "selections" / "foreign.npy", np.array([0, 99], np.uint64))
    with pytest.raises(StoreError, match="not a selection"):
        Store.open(path).selection("foreign")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"text", None])
def test_damaged_selection_is_named(path, content):
    file = path / "selections" / "half.npy"
    file.parent.mkdir()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(StoreError, match=rf"{file} cannot be read \(.+\): restore it or"):
        Store.open(path).selection("half")


def test_phrases_are_listed_with_their_counts(path):
    opened = Store.open(path, ["regions_v1"])
    listed = opened.vocabulary("phrases")
    assert list(listed.items()) == [("thing 0", 3), ("thing 1", 1)]
    assert (path / "regions_v1.phrases.tsv").read_text() == "thing 0\t3\nthing 1\t1\n"
    assert opened.sidecars == ("regions_v1",)


def test_phrases_of_the_base_are_listed_too(tmp_path):
    nouns = dataclasses.replace(PHRASES, name="nouns")
    rows = [{"key": "a", "phrases": ["x", "y"]}, {"key": "b", "nouns": ["z"], "phrases": ["y"]}]
    store.write_shard(tmp_path, store.BASE, 0, rows)
    store.finish_store(tmp_path, "x", iter([PHRASES, nouns]), {})
    opened = Store.open(tmp_path)
    assert opened.vocabulary("phrases") == {"y": 2, "x": 1} and opened.vocabulary("nouns") == {
        "z": 1
    }
    assert {p.name for p in tmp_path.glob("*.tsv")} == {"images.phrases.tsv", "images.nouns.tsv"}


def test_a_labeller_may_bring_its_own_counts(path, monkeypatch):
    def no_reading(*_):
        raise AssertionError("the shards need not be read")

    monkeypatch.setattr(RecordFile, "__getitem__", no_reading)
    counts = {"phrases": {"thing\t 1": 70, "thing 0": 50}}
    store.finish_sidecar(path, "regions_v1", [BOXES, PHRASES], {}, counts)
    assert Store.open(path, ["regions_v1"]).vocabulary("phrases") == {"thing 1": 70, "thing 0": 50}


def test_phrases_are_listed_before_the_manifest_is_there(path, monkeypatch):
    (path / "regions_v1.json").unlink()
    (path / "regions_v1.phrases.tsv").unlink()

    def killed(target, _):
        assert target.name == "regions_v1.phrases.tsv"
        raise KeyboardInterrupt

    monkeypatch.setattr(store.files, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        store.finish_sidecar(path, "regions_v1", [BOXES, PHRASES], {})
    assert not (path / "regions_v1.json").exists()


def test_a_phrase_that_is_no_text_makes_no_sidecar(path):
    rows = [{"key": _key(2, 0)}, {"key": _key(2, 1), "phrases": [b"caf\xe9"]}]
    store.write_shard(path, "regions_v2", 2, rows)
    for shard in (0, 1):
        labels = [{"key": _key(shard, row)} for row in range(_SHARD_ROWS[shard])]
        store.write_shard(path, "regions_v2", shard, labels)
    expected = r"regions_v2-00002.tfrecord: row 1: .*utf-8.*; remove that file and make it again"
    with pytest.raises(StoreError, match=expected):
        store.finish_sidecar(path, "regions_v2", [PHRASES], {})
    assert not list(path.glob("regions_v2*.json")) and not list(path.glob("regions_v2*.tsv"))


@pytest.mark.parametrize("content", [None, b"", b"thing 0\t3\nthi", b"thing 0\n"])
def test_phrases_lost_or_damaged_are_one_line(path, content):
    file = path / "regions_v1.phrases.tsv"
    opened = Store.open(path, ["regions_v1"])
    if content == b"":
        file.unlink()
        file.mkdir()
    elif content:
        file.write_bytes(content)
    else:
        file.unlink()
    fault = r"is damaged \(.+\)" if content is not None else "is missing"
    remedy = r"make the labels again \(.*tools.data.regions .*`python -m tools.data.make_scenes`"
    with pytest.raises(StoreError, match=rf"{file} {fault}: {remedy}") as caught:
        opened.vocabulary("phrases")
    assert "\n" not in str(caught.value)


def test_only_opened_columns_of_phrases_have_a_vocabulary(path):
    for opened, column in (
        (Store.open(path), "phrases"),
        (Store.open(path, ["regions_v1"]), "boxes"),
        (Store.open(path), "caption"),
    ):
        with pytest.raises(StoreError, match=rf"{column}.*open the sidecar.*regions_v1"):
            opened.vocabulary(column)


@pytest.mark.parametrize("index", [True, False])
def test_a_cut_shard_makes_no_store(path, index):
    shard = store.shard_path(path, store.BASE, 0)
    shard.write_bytes(shard.read_bytes()[:-1])
    if not index:
        store.tfrecord.index_path(shard).unlink()
    with pytest.raises(StoreError, match=r"images-00000.tfrecord.*cut short.* make it again"):
        store.finish_store(path, "x", [IMAGE], {})


def test_manifest_is_written_last_and_names_no_machine(path):
    manifest = json.loads((path / "store.json").read_text())
    assert set(manifest) == {"format", "name", "fields", "shards", "provenance"}
    assert manifest["shards"] == list(_SHARD_ROWS)
    assert str(path) not in (path / "store.json").read_text()


def test_files_opened_are_bounded(path, monkeypatch):
    monkeypatch.setattr(store, "_MAX_OPEN_FILES", 1)
    opened = Store.open(path, ["regions_v1"])
    held = opened.records(store.BASE, 0)
    before = len(os.listdir("/proc/self/fd"))
    for row in [0, 3, 4, 1, 2] * 10:
        at = opened.locate(row)
        assert opened.read(at.shard, at.row, ["image", "phrases"])["key"] == [_key(*at)]
    assert len(os.listdir("/proc/self/fd")) <= before + 4
    assert isinstance(held, RecordFile) and held[0]


def test_asking_for_records_opens_nothing(path):
    store.shard_path(path, store.BASE, 0).unlink()
    opened = Store.open(path)
    for shard in (0, 1):  # lost, and without rows
        assert opened.records(store.BASE, shard) is opened.records(store.BASE, shard)


def _read_in_child(opened, results):
    results.put([opened.read(*opened.locate(row), ["image", "boxes"])["image"] for row in range(5)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_open_store_works_in_another_process(path, method):
    opened = Store.open(path, ["regions_v1"])
    expected = [opened.read(*opened.locate(row), ["image"])["image"] for row in range(5)]
    assert pickle.loads(pickle.dumps(opened)).opened_sidecars == ("regions_v1",)
    context = multiprocessing.get_context(method)
    results = context.Queue()
    process = context.Process(target=_read_in_child, args=(opened, results))
    process.start()
    assert results.get(timeout=30) == expected
    process.join()
