# SPDX-License-Identifier: Apache-2.0
"""The phrases of a mixture: one order everywhere, -1 for what is not in it."""

import logging
import pickle

import numpy as np
import pytest

from input_pipeline.store import Store, StoreError, finish_sidecar, finish_store, write_shard
from input_pipeline.tokenizer import EOS, Tokenizer
from input_pipeline.vocabulary import UNKNOWN, Vocabulary
from mtv_jax.core.fields import PHRASES, Field
from tests.integration.helpers import tiny_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_world(tmp_path_factory.mktemp("vocabulary"))


def _store(path, *phrases):
    """A store of one image with these regions."""
    write_shard(path, "images", 0, [{"key": "a"}])
    finish_store(path, path.name, (Field(name="height", dtype="int32"),), {})
    write_shard(path, "regions_v1", 0, [{"key": "a", "phrases": phrases}])
    finish_sidecar(path, "regions_v1", (PHRASES,), {})
    return Store.open(path, ["regions_v1"])


def test_spellings_are_one_phrase_and_nothing_is_none(tmp_path):
    opened = _store(tmp_path / "s", "T-shirt", "tshirt", "t_shirt", "Red  mug", "...", "red mug!")
    vocabulary = Vocabulary.of([opened], "phrases")
    assert vocabulary.phrases == ("red mug", "t shirt", "tshirt") and len(vocabulary) == 3
    assert [vocabulary.encode(t) for t in ("T-Shirt", "t shirt", "RED MUG.")] == [2, 1, 0]
    assert [vocabulary.encode(t) for t in ("mug", "", " ?! ")] == [UNKNOWN] * 3 == [-1] * 3


def test_the_union_does_not_depend_on_the_order_of_the_stores(tmp_path):
    one = _store(tmp_path / "one", "zebra", "zebra", "cat")
    two = _store(tmp_path / "two", "dog", "cat", "cat", "ant")
    unlabelled = Store.open(tmp_path / "two")
    vocabulary = Vocabulary.of([one, two, unlabelled], "phrases")
    assert vocabulary.phrases == ("ant", "cat", "dog", "zebra")
    assert Vocabulary.of([unlabelled, two, one], "phrases") == vocabulary
    assert Vocabulary(("zebra", "Dog", "cat", "ant", "cat")) == vocabulary
    assert len(Vocabulary.of([unlabelled], "phrases")) == 0


def test_the_index_does_not_travel_to_the_workers():
    vocabulary = Vocabulary(tuple(f"thing {i}" for i in range(99)))
    before = len(pickle.dumps(vocabulary))
    assert vocabulary.encode("thing 98") == 98
    assert len(pickle.dumps(vocabulary)) == before
    assert pickle.loads(pickle.dumps(vocabulary)).encode("Thing 98.") == 98


def test_ids_are_those_of_the_texts(world, caplog):
    tokenizer = Tokenizer(str(world / "tokenizer.model"), 20)
    opened = Store.open(world / "train", ["regions_v1"])
    vocabulary = Vocabulary.of([opened], "phrases")
    assert {"disc", "red square", "grey stripe"} < set(vocabulary.phrases)
    ids = vocabulary.ids(tokenizer)
    assert ids.dtype == np.int32 and ids.shape == (len(vocabulary), 20)
    assert (ids[:, -1] == EOS).all()
    disc = vocabulary.encode("Disc")
    np.testing.assert_array_equal(ids[disc], tokenizer.encode("disc"))
    assert not caplog.records
    assert Vocabulary(()).ids(tokenizer).shape == (0, 20)


def test_phrases_that_are_cut_are_said_once(world, caplog):
    tokenizer = Tokenizer(str(world / "tokenizer.model"), 4)
    roomy = Tokenizer(tokenizer.path, 64)
    exact = next(text for text in ("a", "aa", "aaa") if (roomy.encode(text) != EOS).sum() == 3)
    vocabulary = Vocabulary((exact, "red square number 7", "blue square number 8"))
    with caplog.at_level(logging.WARNING):
        ids = vocabulary.ids(tokenizer)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "2 of 3 phrases do not fit into 4 ids and are cut; the first: 'blue square number 8'"
    )
    assert (ids[:, -1] == EOS).all() and (ids[:, -2] != EOS).all()


def test_a_store_without_its_list_of_phrases_is_one_line(tmp_path):
    opened = _store(tmp_path / "s", "cat")
    (tmp_path / "s" / "regions_v1.phrases.tsv").unlink()
    with pytest.raises(StoreError, match=r"regions_v1\.phrases\.tsv is missing: make the labels"):
        Vocabulary.of([opened], "phrases")
