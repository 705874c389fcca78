# SPDX-License-Identifier: Apache-2.0
"""Captions as they come from the web, made plain text."""

import dataclasses
import html
import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

MAX_CHARACTERS = 2_000  # the tokenizer keeps 64 tokens, about 400 characters of English
_MAX_RAW_CHARACTERS = 8 * MAX_CHARACTERS  # bounds the time that hostile markup can take
_MARKUP = re.compile(
    r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|</?(?P<tag>[a-z][a-z0-9]*)\b[^<>]*>",
    re.DOTALL | re.IGNORECASE,
)
# Tags that stand inside a word or a sentence; the others part words.
_INLINE = {"a", "b", "em", "font", "i", "mark", "s", "small", "span", "strong", "sub", "sup", "u"}
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.I)
_JOINERS = "\u200c\u200d"  # invisible, yet part of the spelling of Persian and of many emoji


@dataclasses.dataclass(frozen=True)
class Caption:
    """A cleaned caption ("" is none) and what was done to the raw one."""

    text: str
    changes: tuple[str, ...] = ()


def choose_caption(text: bytes | None, metadata: bytes | None) -> Caption:
    """The caption of a sample: its text file, else the `caption` of its JSON, cleaned.

    Text that is not UTF-8 is replaced by the JSON caption if there is one, and else read as
    Windows-1252, the superset of Latin-1 that web pages mean by it.

    Args:
        text: content of the text file; None where there is no such file.
        metadata: content of the JSON file; None where there is no such file.
    """
    origin: tuple[str, ...] = ()
    if text is None:
        raw, origin = _json_caption(metadata), ("caption_from_json",)
    else:
        try:
            raw = text.decode()
        except UnicodeDecodeError:
            raw, origin = _json_caption(metadata), ("caption_not_utf8", "caption_from_json")
            if not raw:
                raw, origin = text.decode("cp1252", "ignore"), ("caption_not_utf8",)
    cleaned = clean_caption(raw)
    return Caption(cleaned.text, origin + cleaned.changes) if cleaned.text else Caption("")


def clean_caption(raw: str) -> Caption:
    """Strips markup, entities, control and invisible characters, and length; collapses spaces."""
    text = raw[:_MAX_RAW_CHARACTERS]
    changes = [] if text == raw else ["caption_shortened"]
    steps: dict[str, Callable[[str], str]] = {
        "caption_markup": _without_markup,
        "caption_control_characters": _without_control_characters,
        "caption_shortened": _shortened,
    }
    for change, step in steps.items():
        text, before = step(text), text
        if text != before and change not in changes:
            changes.append(change)
    return Caption(" ".join(text.split()), tuple(changes))


def read_metadata(metadata: bytes | None) -> dict[str, Any]:
    """What the JSON file of a sample says; empty where there is none, or no object in it."""
    try:
        content = json.loads(metadata or b"{}")
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _json_caption(metadata: bytes | None) -> str:
    caption = read_metadata(metadata).get("caption")
    return caption if isinstance(caption, str) else ""


def _without_markup(text: str) -> str:
    stripped = _MARKUP.sub(_gap, text)
    unescaped = _ENTITY.sub(lambda entity: html.unescape(entity[0]), stripped)
    return _MARKUP.sub(_gap, unescaped) if unescaped != stripped else unescaped


def _gap(markup: re.Match[str]) -> str:
    """What a piece of markup leaves behind."""
    return "" if (markup["tag"] or "").lower() in _INLINE else " "


def _without_control_characters(text: str) -> str:
    return "".join(
        character
        for character in text
        if character.isspace()
        or character in _JOINERS
        or unicodedata.category(character) not in ("Cc", "Cf", "Cs")
    )


def _shortened(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    words = text[: MAX_CHARACTERS + 1].rsplit(maxsplit=1)
    return words[0] if len(words) > 1 else text[:MAX_CHARACTERS]
