# SPDX-License-Identifier: Apache-2.0
"""Which values of the metadata become columns."""

import math

import numpy as np
import pytest

from mtv_jax.core.errors import UserError
from tools.data import checks, scores

_NAMES = ("similarity", "punsafe", "nsfw")


@pytest.mark.parametrize("value", [0.5, 1, np.float64(0.5), np.float32(2), np.int64(3), -1e-60])
def test_numbers_are_kept(value):
    assert scores.kept({"punsafe": value}, _NAMES) == {"punsafe": float(value)}


@pytest.mark.parametrize(
    "value", [None, math.nan, math.inf, "0.5", True, np.True_, [0.5], {}, 1e39, -1e39, 10**400]
)
def test_what_is_no_number_is_absent(value):
    assert scores.kept({"punsafe": value}, _NAMES) == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [("UNLIKELY", "UNLIKELY"), (b"NSFW", "NSFW"), (" <b>x</b>\0", "x")],
)
def test_text_is_kept_clean(value, expected):
    assert scores.kept({"NSFW": value}, _NAMES) == {"nsfw": expected}


@pytest.mark.parametrize("value", [None, "", " ", "<br>", 0.5, b""])
def test_what_is_no_text_is_absent(value):
    assert scores.kept({"NSFW": value}, _NAMES) == {}


def test_names_count_in_lower_case_and_in_order():
    values = {"Other": 1, "PUNSAFE": 0.5, "Similarity": 0.25}
    assert list(scores.kept(values, _NAMES).items()) == [("similarity", 0.25), ("punsafe", 0.5)]


def test_fields_are_what_the_values_are():
    values = scores.kept({"NSFW": "x", "punsafe": 0.1}, _NAMES)
    for field in scores.fields(values):
        value = values[field.name]
        stored = [value.encode()] if isinstance(value, str) else np.array([value], np.float32)
        assert checks.column_fault(field, stored) == ""


def test_names_to_keep():
    assert scores.names_to_keep("", ()) == scores.DEFAULT
    kept = scores.names_to_keep(" Blur, punsafe,a_1 ", ("image",))
    assert kept == (*scores.DEFAULT, "blur", "a_1")
    for bad in ("image", "Image", "a b", "a,,b", "a/b"):
        with pytest.raises(UserError, match="--keep_columns cannot keep"):
            scores.names_to_keep(bad, ("image",))
