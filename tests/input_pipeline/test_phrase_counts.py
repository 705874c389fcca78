# SPDX-License-Identifier: Apache-2.0
"""The file of phrases: its order, its white space, what makes it damaged."""

import numpy as np
import pytest

from input_pipeline import phrase_counts
from input_pipeline.store import shard_path, write_shard


def test_the_most_frequent_comes_first_and_ties_are_alphabetical(tmp_path):
    path = phrase_counts.table_path(tmp_path, "regions_v1", "phrases")
    phrase_counts.write(path, {"zebra": 2, "Äpfel": 2, "cat": 9, "bird": 2})
    assert path.name == "regions_v1.phrases.tsv"
    assert path.read_bytes() == "cat\t9\nbird\t2\nzebra\t2\nÄpfel\t2\n".encode()
    assert list(phrase_counts.read(path).items()) == [
        ("cat", 9),
        ("bird", 2),
        ("zebra", 2),
        ("Äpfel", 2),
    ]


def test_white_space_becomes_single_spaces_and_equal_phrases_one(tmp_path):
    path = tmp_path / "x.tsv"
    phrase_counts.write(path, {"a\tred\n cat": 1, " a red cat": 2, "\n": 5, "a\u2028dog\r": 1})
    assert phrase_counts.read(path) == {"a red cat": 3, "a dog": 1}


def test_no_phrases_are_an_empty_file(tmp_path):
    phrase_counts.write(tmp_path / "x.tsv", {})
    assert phrase_counts.read(tmp_path / "x.tsv") == {}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"cat\t2\ndog\t1", "cut short"),
        (b"cat\t2\ndog\n", "line 2"),
        (b"cat\tmany\n", "line 1"),
        (b"cat\t-1\n", "line 1"),
        (b"\t3\n", "line 1"),
        (b"cat\t2\ncat\t1\n", "line 2"),
        (b"cat\t2\n\ndog\t1\n", "line 2"),
        (b"caf\xe9\t2\n", "utf-8"),
    ],
)
def test_damage_is_noticed(tmp_path, content, fault):
    (tmp_path / "x.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=fault):
        phrase_counts.read(tmp_path / "x.tsv")


@pytest.mark.parametrize(
    ("phrases", "fault"),
    [([b"caf\xe9"], "row 1: .*utf-8"), (np.arange(3), "row 1: numbers in place of phrases")],
)
def test_what_is_no_text_is_not_counted(tmp_path, phrases, fault):
    rows = [{"key": "a", "phrases": ["cat"]}, {"key": "b", "phrases": phrases}]
    write_shard(tmp_path, "labels", 0, rows)
    with pytest.raises(ValueError, match=fault):
        phrase_counts.count([shard_path(tmp_path, "labels", 0)], ["phrases"])
