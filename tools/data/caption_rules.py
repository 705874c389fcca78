# SPDX-License-Identifier: Apache-2.0
"""What is known of a caption without its image: length, boilerplate, repeats, language.

The rules are those of the usual web filters, and a short list of what pages write where a caption
should be. They judge the text as it is stored.
"""

import functools
import re
from typing import Any, NamedTuple

from mtv_jax.core.errors import UserError
from tools.data import digests

FAULTS = ("", "no letters", "file name", "web address", "page furniture")  # by code

_FILE_NAME = re.compile(
    r"\S+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|heic|avif)"
    r"|(?:img|imag|image|dscn?|dscf|pict?|photo|picture|screenshot|mvi|gopr|wp|pxl|untitled)"
    r"[\s_-]*\d[\d\s_().-]*",
    re.IGNORECASE,
)
_ADDRESS = re.compile(
    r"(?:(?:https?://|www\.)\S+|[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|info|de|uk|fr|ru|cn|jp)(?:/\S*)?)",
    re.IGNORECASE,
)
_FURNITURE = frozenset(
    """\
advertisement
alt text
click for larger image
click for more
click here
click image to enlarge
click on image to enlarge
click the image to enlarge
click to enlarge
click to expand
click to view
click to view larger image
click to zoom
close
default image
enlarge
enlarge image
featured image
hover to zoom
image
image coming soon
image may contain
image not available
image not found
image placeholder
loading
logo
main image
next
no caption
no image
no image available
no photo available
open image in new window
photo
picture
placeholder
placeholder image
previous
product image
read more
share on facebook
skip to content
stock photo
thumbnail
untitled
view full size
view image
view larger image
zoom
""".splitlines()
)


class Measured(NamedTuple):
    """Numbers of one caption: a hash of its words (0 is none), lengths, a code of `FAULTS`."""

    repeat: int
    words: int
    characters: int
    fault: int


def measure(text: str) -> Measured:
    """What the rules need to know of a caption; "" is none.

    Words are parted by spaces, so a language that writes none has few. Case and spacing do not make
    another caption.
    """
    words = text.casefold().split()
    if not words:
        return Measured(0, 0, 0, 0)
    repeat = digests.of_bytes(" ".join(words).encode()) or 1
    fault = FAULTS.index(boilerplate(text))
    return Measured(repeat, min(len(words), 0xFFFF), min(len(text), 0xFFFF), fault)


def boilerplate(text: str) -> str:
    """Which of `FAULTS` a caption is as a whole; "" where it is none of them."""
    text = text.strip()
    if not any(character.isalpha() for character in text):
        return "no letters"
    if _FILE_NAME.fullmatch(text):
        return "file name"
    if all(_ADDRESS.fullmatch(word) for word in text.split()):
        return "web address"
    bare = " ".join(re.findall(r"\w+", text.casefold()))
    return "page furniture" if bare in _FURNITURE else ""


def probability(text: str, language: str) -> float:
    """How likely `text` is in a language (its code of two letters), by py3langid; 1 without text.

    Raises:
        UserError: the package is not installed, or knows no such language.
    """
    return dict(_identifier(language).rank(text))[language] if text else 1.0


@functools.cache
def _identifier(language: str) -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise UserError("--language needs `pip install imagehash py3langid`") from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    known = sorted(set(identifier.labels))
    if language not in known:
        raise UserError(f"--language: py3langid knows no {language!r}, only {', '.join(known)}")
    return identifier
