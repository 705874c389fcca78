# SPDX-License-Identifier: Apache-2.0
"""Cleaning of captions, and which of several sources of one is taken."""

import json
import time

import pytest

from tools.data.captions import MAX_CHARACTERS, Caption, choose_caption, clean_caption


@pytest.mark.parametrize(
    ("raw", "text", "changes"),
    [
        ("A plain one.", "A plain one.", ()),
        ("  two\n\n spaces\t ", "two spaces", ()),
        ("<b>axe</b>\n &amp; IMG_0042.JPG\v\u200b", "axe & IMG_0042.JPG", ("markup", "control")),
        ("&lt;p class='x'&gt;twice&lt;/p&gt; &#233; &#xe9;", "twice é é", ("markup",)),
        ("<script>alert(1)</script>a<!-- b > c -->d", "a d", ("markup",)),
        ("I <3 you, 5 < 6 > 4, AT&T, R&D; x", "I <3 you, 5 < 6 > 4, AT&T, R&D; x", ()),
        ("bell\x07 nul\0 bidi\u202e bom\ufeff", "bell nul bidi bom", ("control",)),
        ("lone \ud800 surrogate", "lone surrogate", ("control",)),
        ("family 👨\u200d👩\u200d👧 café 日本", "family 👨\u200d👩\u200d👧 café 日本", ()),
        ("<br>", "", ("markup",)),
        ("A <I>cat</I>, H<sub>2</sub>O<p>and<br/>more", "A cat, H2O and more", ("markup",)),
        ("", "", ()),
    ],
)
def test_cleaning(raw, text, changes):
    names = {"markup": "caption_markup", "control": "caption_control_characters"}
    assert clean_caption(raw) == Caption(text, tuple(names[change] for change in changes))


def test_clean_text_stays_as_it_is():
    for raw in ("<b>a</b> &amp;amp; b", "x\0" * 3000, "word " * 2000):
        once = clean_caption(raw).text
        assert clean_caption(once).text == once or "&" in once


@pytest.mark.parametrize("raw", ["word " * 2000, "x" * 9000])
def test_long_captions_are_cut_at_a_word_if_there_is_one(raw):
    caption = clean_caption(raw)
    assert MAX_CHARACTERS - 5 <= len(caption.text) <= MAX_CHARACTERS
    assert caption.text == caption.text.strip()
    assert caption.text.endswith(("word", "x"))
    assert caption.changes == ("caption_shortened",)


@pytest.mark.parametrize("hostile", ["<script", "<!--", "<a ", "&#x41;&lt;b", "<"])
def test_hostile_markup_costs_little_time(hostile):
    start = time.perf_counter()
    clean_caption(hostile * 200_000)
    assert time.perf_counter() - start < 2


def _json(caption):
    return json.dumps({"caption": caption}).encode()


@pytest.mark.parametrize(
    ("text", "metadata", "expected", "changes"),
    [
        (b"text", _json("json"), "text", ()),
        ("Île".encode(), None, "Île", ()),
        (None, _json("json"), "json", ("from_json",)),
        (
            "Île".encode("latin-1"),
            _json("Île de la Cité"),
            "Île de la Cité",
            ("not_utf8", "from_json"),
        ),
        ("“Île”".encode("cp1252"), _json(None), "“Île”", ("not_utf8",)),
        ("Île".encode("latin-1"), None, "Île", ("not_utf8",)),
        (b"", _json("json"), "", ()),
        (b" \n", None, "", ()),
        (None, _json(""), "", ()),
        (None, _json(["a"]), "", ()),
        (None, b"[1]", "", ()),
        (None, b"{broken", "", ()),
        (None, None, "", ()),
    ],
)
def test_choice(text, metadata, expected, changes):
    caption = choose_caption(text, metadata)
    assert caption == Caption(expected, tuple(f"caption_{change}" for change in changes))
