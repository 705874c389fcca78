# SPDX-License-Identifier: Apache-2.0
"""Conditions on columns."""

import argparse

import numpy as np
import pytest

from mtv_jax.core.errors import UserError
from tools.data import conditions
from tools.data.conditions import Condition

ALL = np.ones(6, bool)
SCORES = np.array([0.1, np.nan, 0.28, 0.5, 0.3, 0.28], np.float32)


@pytest.mark.parametrize(
    ("kind", "value", "fails"),
    [
        ("min", "0.28", [1, 0, 0, 0, 0, 0]),  # the value itself, in float32, is in
        ("max", "0.28", [0, 0, 0, 1, 1, 0]),
        ("top", "0.4", [1, 0, 1, 0, 0, 1]),
        ("top", "0.6", [1, 0, 0, 0, 0, 1]),  # of equal ones the first
        ("top", "1", [0, 0, 0, 0, 0, 0]),
    ],
)
def test_numbers(kind, value, fails):
    found = Condition(kind, "score", value).fails(SCORES, ALL)
    np.testing.assert_array_equal(found, np.array(fails, bool))


def test_a_share_is_of_the_rows_that_are_left():
    left = np.array([1, 1, 0, 0, 1, 1], bool)
    found = Condition("top", "score", "0.34").fails(SCORES, left)
    assert not found[4] and found[[0, 5]].all()


def test_words():
    words = np.array(["UNLIKELY", "", "NSFW", "UNSURE"])
    found = Condition("only", "nsfw", "UNLIKELY, UNSURE").fails(words, np.ones(4, bool))
    np.testing.assert_array_equal(found, [False, False, True, False])
    np.testing.assert_array_equal(conditions.lacks(words), [False, True, False, False])


def test_the_command_line():
    parser = argparse.ArgumentParser()
    conditions.add_arguments(parser)
    parsed = parser.parse_args(
        ["--top", "s=0.3", "--min", "a=1", "--min", "b=2", "--only", "w=x=y"]
    )
    assert conditions.parse(parsed) == [
        Condition("min", "a", "1"),
        Condition("min", "b", "2"),
        Condition("only", "w", "x=y"),
        Condition("top", "s", "0.3"),
    ]
    assert parsed.missing == "keep"


@pytest.mark.parametrize("text", ["score", "=1", "score=", "score=high", "score=nan"])
def test_what_is_not_a_condition(text):
    with pytest.raises(UserError, match="want --min COLUMN=VALUE"):
        conditions.parse(argparse.Namespace(min=[text], max=[], only=[], top=[]))


@pytest.mark.parametrize("share", ["0", "1.5", "-1"])
def test_a_share_is_a_share(share):
    with pytest.raises(UserError, match="--top"):
        Condition("top", "score", share)


def test_columns_that_are_not_there():
    def check(kind, column):
        conditions.check_columns([Condition(kind, column, "1")], {"punsafe"}, {"nsfw"}, "stores/a")

    check("min", "punsafe")
    check("only", "nsfw")
    with pytest.raises(UserError, match=r'--max punsave=1: stores/a has no .*mean "punsafe"'):
        check("max", "punsave")
    with pytest.raises(UserError, match="has the column as text"):
        check("max", "nsfw")
    with pytest.raises(UserError, match="has the column as numbers"):
        check("only", "punsafe")
