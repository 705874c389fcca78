# SPDX-License-Identifier: Apache-2.0
"""What captions are measured by."""

import sys

import pytest

from mtv_jax.core.errors import UserError
from tools.data import caption_rules


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("A red car", ""),
        ("IMG_1234.jpg", "file name"),
        ("DSC 0042 (2)", "file name"),
        ("sunset-over_rome.PNG", "file name"),
        ("photo 12", "file name"),
        ("A photo of 12 dogs", ""),
        ("image of a dog", ""),
        ("My holiday, see beach.jpg", ""),
        ("https://example.com/a/b?c=1", "web address"),
        ("www.example.co.uk", "web address"),
        ("example.com", "web address"),
        ("Poster of example.com", ""),
        ("Rome(www.example.com)", ""),
        ("U.S. flag", ""),
        ("12 / 34 -- 56", "no letters"),
        ("собака", ""),
        ("Click to Enlarge!", "page furniture"),
        ("[ Image not available ]", "page furniture"),
        ("click to enlarge the sleeping cat", ""),
    ],
)
def test_boilerplate(text, fault):
    assert caption_rules.boilerplate(text) == fault


def test_measures():
    measured = caption_rules.measure("A  red\tCar")
    assert (measured.words, measured.characters, measured.fault) == (3, 10, 0)
    assert measured.repeat == caption_rules.measure("a red car").repeat != 0
    assert measured.repeat != caption_rules.measure("a blue car").repeat
    assert caption_rules.measure("") == caption_rules.measure(" ") == (0, 0, 0, 0)
    assert caption_rules.FAULTS[caption_rules.measure("www.example.com").fault] == "web address"


def test_long_captions_fit_their_columns():
    measured = caption_rules.measure("a " * 70_000)
    assert measured.words == measured.characters == 0xFFFF


def test_languages():
    pytest.importorskip("py3langid")
    english = "two dogs are playing with a ball on the beach"
    german = "zwei Hunde spielen mit einem Ball am Strand"
    assert caption_rules.probability(english, "en") > 0.5 > 0.02
    assert caption_rules.probability(german, "en") < 0.004
    assert caption_rules.probability(german, "de") > 0.5
    assert caption_rules.probability("", "en") == 1
    with pytest.raises(UserError, match=r"knows no 'english', only .*en"):
        caption_rules.probability("a", "english")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    caption_rules._identifier.cache_clear()
    with pytest.raises(UserError, match="pip install imagehash py3langid"):
        caption_rules.probability("a", "en")
