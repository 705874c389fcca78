# SPDX-License-Identifier: Apache-2.0
"""Tests of input_pipeline.loader, records and tokenizer on a tiny store."""

import dataclasses
import itertools
import pickle
import re

import numpy as np
import pytest

from input_pipeline.fake import fake_batch
from input_pipeline.loader import InputConfig, LocalRows, StoreConfig, batches, open_streams
from input_pipeline.records import SampleSource, sample_shapes
from input_pipeline.store import (
    Store,
    finish_sidecar,
    finish_store,
    write_selection,
    write_shard,
)
from input_pipeline.tokenizer import EOS, Tokenizer, canonicalize
from input_pipeline.vocabulary import UNKNOWN, Vocabulary
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import BOXES, CAPTION, DEPTH, IMAGE, PHRASES, SCORES, Field
from mtv_jax.core.position import join_position
from tests.integration.helpers import SIZE_FIELDS, tiny_world

FIELDS = (IMAGE, CAPTION)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_world(tmp_path_factory.mktemp("loader"))


def _source(world, fields=FIELDS, vocabularies=None, **kwargs) -> SampleSource:
    streams = open_streams({"train": StoreConfig(path=str(world / "train"), **kwargs)}, ())
    tokenizer = Tokenizer(str(world / "tokenizer.model"), 8)
    return SampleSource(streams, fields, 32, tokenizer, vocabularies or {}, seed=3)


def _read(source, rows, *, first=0, count=3, workers=0, batch_size=8) -> list[dict]:
    local = LocalRows(batch_size=batch_size, rows=np.asarray(rows))
    config = InputConfig(stores={}, workers=workers)
    return list(itertools.islice(batches(source, local, first=first, config=config), count))


def _assert_equal(one, other):
    for name, value in one.items():
        if isinstance(value, dict):
            _assert_equal(value, other[name])
        else:
            np.testing.assert_array_equal(value, other[name])


def test_processes_together_read_what_one_reads(world):
    source = _source(world)
    whole = _read(source, range(8))
    parts = [_read(source, rows) for rows in ([0, 1, 4, 5], [2, 3, 6, 7])]
    for k in range(3):
        np.testing.assert_array_equal(join_position(whole[k]["position"]), 8 * k + np.arange(8))
        for part, rows in zip(parts, ([0, 1, 4, 5], [2, 3, 6, 7]), strict=True):
            _assert_equal(part[k], {n: _rows(v, rows) for n, v in whole[k].items()})


def _rows(value, rows):
    return {k: v[rows] for k, v in value.items()} if isinstance(value, dict) else value[rows]


def test_workers_and_resuming_change_nothing(world):
    source = _source(world)
    straight = _read(source, range(8), count=5)
    for k, batch in enumerate(_read(source, range(8), count=5, workers=2)):
        _assert_equal(batch, straight[k])
    for k, batch in enumerate(_read(source, range(8), first=3, count=2)):
        _assert_equal(batch, straight[3 + k])


def test_an_epoch_is_every_record_once(world):
    source = _source(world)
    ids = [tuple(source[i]["record_id"]) for i in range(96)]
    assert len(set(ids)) == 96
    assert [tuple(source[96 + i]["record_id"]) for i in range(96)] != ids


def test_selections_and_mixtures(world):
    write_selection(world / "train", "few", np.asarray([3, 50, 7]))
    source = _source(world, selection="few")
    store = Store.open(world / "train")
    drawn = {tuple(source[i]["record_id"][1:]) for i in range(3)}
    assert drawn == {tuple(store.locate(i)) for i in (3, 7, 50)}
    with pytest.raises(ValueError, match="no selection 'none'"):
        _source(world, selection="none")


def test_a_selection_does_not_travel_to_the_workers(world):
    write_selection(world / "train", "most", np.arange(90))
    (stream,) = open_streams(
        {"train": StoreConfig(path=str(world / "train"), selection="most")}, FIELDS
    )
    assert len(stream.rows) == 90
    assert len(pickle.dumps(stream)) == len(pickle.dumps(dataclasses.replace(stream)))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stream)).rows, np.arange(90))


def _regions_source(world, *phrases) -> SampleSource:
    """With the store's vocabulary, or one of `phrases`."""
    store = Store.open(world / "train", ["regions_v1"])
    vocabulary = Vocabulary(phrases) if phrases else Vocabulary.of([store], "phrases")
    fields = (IMAGE, BOXES, PHRASES, SCORES)
    return _source(world, fields, {"phrases": vocabulary}, sidecars=("regions_v1",))


def test_phrases_are_indices_and_padding_is_never_a_phrase(world):
    source = _regions_source(world)
    vocabulary = source.vocabularies["phrases"].phrases
    store = Store.open(world / "train", ["regions_v1"])
    seen = set()
    for i in range(96):
        sample = source[i]
        _, shard, row = sample["record_id"].tolist()
        phrases = sample["phrases"]
        assert phrases.shape == (20,) and phrases.dtype == np.int32
        assert (phrases[1:] == UNKNOWN).all()
        assert bool(sample["valid"]["phrases"]) == (phrases[0] != UNKNOWN) == (row % 7 < 6)
        if sample["valid"]["phrases"]:
            (stored,) = store.read(shard, row, ["phrases"])["phrases"]
            assert vocabulary[phrases[0]] == stored.decode()
            seen.add(stored.decode())
    assert seen == set(vocabulary)


def test_a_phrase_that_the_vocabulary_lacks_is_unknown_but_valid(world):
    source = _regions_source(world, "disc", "square", "stripe")
    samples = [source[i] for i in range(96)]
    coloured = [s for s in samples if s["valid"]["phrases"] and s["record_id"][2] % 2 == 0]
    assert coloured and all((s["phrases"] == UNKNOWN).all() for s in coloured)
    assert {int(s["phrases"][0]) for s in samples} == {-1, 0, 1, 2}


def test_workers_read_the_same_phrases(world):
    source = _regions_source(world)
    straight = _read(source, range(8))
    for batch, expected in zip(_read(source, range(8), workers=2), straight, strict=True):
        _assert_equal(batch, expected)
    assert {b["phrases"].dtype for b in straight} == {np.dtype(np.int32)}
    assert (straight[0]["phrases"][:, 0] >= 0).any()


def test_more_phrases_than_fit_are_cut(tmp_path, world):
    phrases = [f"thing {i:02}" for i in range(30)]
    row = {"key": "a", "height": 40, "width": 48, "phrases": phrases}
    write_shard(tmp_path / "train", "images", 0, [row])
    finish_store(tmp_path / "train", "many", (*SIZE_FIELDS, PHRASES), {})
    (tmp_path / "tokenizer.model").symlink_to(world / "tokenizer.model")
    vocabulary = Vocabulary.of([Store.open(tmp_path / "train")], "phrases")
    sample = _source(tmp_path, (PHRASES,), {"phrases": vocabulary})[0]
    assert sample["phrases"].tolist() == list(range(20)) and len(vocabulary) == 30


def test_missing_columns_are_invalid_and_blank(world):
    def rows(shard):
        for row in range(48):
            label = {"boxes": [0.1, 0.2, 0.5, 0.6]} if row % 2 else {}
            yield {"key": f"{shard}-{row}", **label}

    for shard in range(2):
        write_shard(world / "train", "halves_v1", shard, rows(shard))
    finish_sidecar(world / "train", "halves_v1", (BOXES,), {})
    source = _source(world, (IMAGE, CAPTION, BOXES, DEPTH), sidecars=("halves_v1",))
    for i in range(20):
        sample = source[i]
        labelled = sample["record_id"][2] % 2 == 1
        assert bool(sample["valid"]["boxes"]) == labelled
        assert not sample["valid"]["depth"] and not sample["depth"].any()
        expected = [0.1, 0.2, 0.5, 0.6] if labelled else [0.0] * 4
        np.testing.assert_allclose(sample["boxes"][0], expected, rtol=1e-6)
        assert not sample["boxes"][1:].any()


def test_a_broken_record_is_an_invalid_sample_of_the_same_shape(world, tmp_path, caplog):
    import shutil

    shutil.copytree(world / "train", tmp_path / "train")
    shutil.copy(world / "tokenizer.model", tmp_path / "tokenizer.model")
    shard = tmp_path / "train" / "images-00000.tfrecord"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(data)
    good, bad = _source(world), _source(tmp_path)
    broken = 0
    for i in range(96):
        sample, reference = bad[i], good[i]
        np.testing.assert_array_equal(sample["record_id"], reference["record_id"])
        if sample["valid"]["image"]:
            _assert_equal(sample, reference)
        else:
            broken += 1
            assert sample["image"].shape == reference["image"].shape and not sample["image"].any()
    assert broken == 1 and "unreadable: store tiny shard 0" in caplog.text


@pytest.fixture
def odd_source(tmp_path, world):
    """A source over one record for each kind of oddity, by name."""
    image = Store.open(world / "train").read(0, 0, ["image"])["image"][0]
    odd = {
        "torn": {"image": image[: len(image) // 2], "caption": "a torn image"},
        "latin1": {"image": image, "caption": "caf\xe9".encode("latin1")},
        "silent": {"image": image, "caption": " \n"},
        "dots": {"image": image, "caption": "... !"},
        "lame": {"image": image, "caption": "six numbers", "boxes": np.zeros(6)},
        "empty": {"image": image, "caption": "no regions", "boxes": []},
        "many": {"image": image, "caption": "30 regions", "boxes": np.linspace(0, 1, 120)},
    }
    rows = ({"key": key, "height": 40, "width": 48, **row} for key, row in odd.items())
    write_shard(tmp_path, "images", 0, rows)
    finish_store(tmp_path, "odd", (IMAGE, CAPTION, *SIZE_FIELDS, BOXES), {})

    def sample(name: str) -> dict:
        streams = open_streams({"odd": StoreConfig(path=str(tmp_path))}, (IMAGE, CAPTION, BOXES))
        tokenizer = Tokenizer(str(world / "tokenizer.model"), 8)
        source = SampleSource(streams, (IMAGE, CAPTION, BOXES), 32, tokenizer, {}, seed=3)
        row = list(odd).index(name)
        return next(x for x in map(source.__getitem__, range(7)) if x["record_id"][2] == row)

    return sample


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("torn", "image"),
        ("latin1", "caption"),
        ("lame", "boxes"),
        ("silent", "caption"),
        ("dots", "caption"),
        ("empty", "boxes"),
    ],
)
def test_a_damaged_or_empty_column_is_invalid_alone(odd_source, name, column, caplog):
    sample = odd_source(name)
    present = {"image", "caption", "boxes"} if name in ("lame", "empty") else {"image", "caption"}
    assert {k for k, v in sample["valid"].items() if v} == present - {column}
    assert not sample[column].any()
    damaged = name in ("torn", "latin1", "lame")
    assert (f"unreadable: store odd shard 0 row {sample['record_id'][2]}" in caplog.text) == damaged


def test_ragged_columns_are_cut_to_their_static_length(odd_source):
    sample = odd_source("many")
    assert sample["valid"]["boxes"] and sample["boxes"].shape == (20, 4)
    np.testing.assert_allclose(sample["boxes"].ravel(), np.linspace(0, 1, 120)[:80], rtol=1e-6)


def test_streams_of_a_mixture_have_orders_of_their_own(world):
    same = StoreConfig(path=str(world / "train"))
    tokenizer = Tokenizer(str(world / "tokenizer.model"), 8)
    source = SampleSource(
        open_streams({"a": same, "b": same}, FIELDS), FIELDS, 32, tokenizer, {}, seed=3
    )
    ids = [tuple(source[i]["record_id"]) for i in range(40)]
    one, two = ([rest for store, *rest in ids if store == number] for number in (0, 1))
    assert len(one) == len(two) == 20 and one != two


def test_shapes_are_known_without_reading(world):
    fields = (IMAGE, CAPTION, BOXES, DEPTH, Field(name="label", dtype="int32"))
    shapes = sample_shapes(fields, canvas=32, text_length=8)
    sample = _source(world, fields)[0]
    assert sample.keys() == shapes.keys() and sample["valid"].keys() == shapes["valid"].keys()
    fake = fake_batch(fields, batch_size=4, canvas=32, text_length=8, first_position=2**33)
    for name, value in sample.items():
        if name != "valid":
            assert (value.shape, value.dtype) == shapes[name]
            assert (fake[name].shape[1:], fake[name].dtype) == shapes[name]


def test_an_empty_store_and_a_wrong_column_are_one_line(world, tmp_path):
    write_shard(tmp_path / "empty", "images", 0, [])
    finish_store(tmp_path / "empty", "empty", (IMAGE,), {})
    for path, message in ((tmp_path / "empty", "no rows"), (tmp_path / "no", "is not there")):
        with pytest.raises(ValueError, match=message):
            open_streams({"train": StoreConfig(path=str(path))}, FIELDS)
    with pytest.raises(
        UserError, match=r"no store .* has the column .normals.*; label the store .*depth_maps"
    ):
        normals = dataclasses.replace(DEPTH, name="normals")
        open_streams({"train": StoreConfig(path=str(world / "train"))}, (IMAGE, normals))
    config = StoreConfig(path=str(world / "train"), sidecars=("scene_v1",))
    remedy = "open it with --config.input.stores.train.sidecars=\"('scene_v1', 'depth_v1')\""
    with pytest.raises(UserError, match=re.escape(remedy)):
        open_streams({"train": config}, (IMAGE, DEPTH))
    write_shard(tmp_path / "plain", "images", 0, [{"key": "a", "height": 1, "width": 1}])
    finish_store(tmp_path / "plain", "plain", (IMAGE, *SIZE_FIELDS), {})
    plain = {"train": StoreConfig(path=str(tmp_path / "plain"))}
    for field in (BOXES, PHRASES, SCORES):
        with pytest.raises(UserError, match=r"label the store \(`python -m tools.data.regions`"):
            open_streams(plain, (IMAGE, field))
    names = dataclasses.replace(PHRASES, name="names")
    with pytest.raises(UserError, match=r"has the column .names.*; label the store, or open a"):
        open_streams({"train": config}, (IMAGE, names))


def test_captions_are_canonical_and_end_with_eos(world):
    tokenizer = Tokenizer(str(world / "tokenizer.model"), 8)
    assert canonicalize("  A_red,  SQUARE!\n(x) ") == "a red square x"
    same = [tokenizer.encode(t) for t in ("A red square.", "a red   square", "a_red_square")]
    np.testing.assert_array_equal(same[0], same[1])
    np.testing.assert_array_equal(same[0], same[2])
    long = tokenizer.encode("a red square " * 20)
    assert long.shape == (8,) and long[-1] == EOS and (long[:-1] != EOS).all()
    short = tokenizer.encode("red")
    assert short[-1] == EOS and (short == EOS).sum() > 4


def test_wrong_tokenizers_are_refused(tmp_path):
    import io

    import sentencepiece

    with pytest.raises(UserError, match="no tokenizer at"):
        Tokenizer(str(tmp_path / "none.model"), 8)
    (tmp_path / "text.model").write_text("not a model")
    with pytest.raises(UserError, match="is not a SentencePiece model"):
        Tokenizer(str(tmp_path / "text.model"), 8)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f"] * 50),
        model_writer=model,
        vocab_size=16,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "default.model").write_bytes(model.getvalue())
    with pytest.raises(UserError, match="EOS id 2"):
        Tokenizer(str(tmp_path / "default.model"), 8)


def test_fake_batches_are_what_they_say():
    batch = fake_batch((IMAGE, BOXES, PHRASES), batch_size=3, canvas=16, text_length=0)
    assert batch["phrases"].dtype == np.int32 and batch["phrases"].shape == (3, 20)
    assert 0 <= batch["phrases"].min() < batch["phrases"].max() < 32
    boxes = batch["boxes"]
    assert batch["image"].dtype == np.uint8 and batch["image"].std() > 20
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
