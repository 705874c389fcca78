# SPDX-License-Identifier: Apache-2.0
"""Sheets of framed images and coloured text, put together from rows and columns."""

import dataclasses
import textwrap
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont, ImageOps

SIDE = 144
RIGHT, NEAR, WRONG, PLAIN = "#1a8f3c", "#d98e04", "#c0392b", "#444444"

_GAP = 8
_FRAME = 4
LINE = 15  # height of a line of text in pixels
_FONT_SIZE = 12
_CHARACTER = 6.2  # mean width in pixels at that size


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph of one colour."""

    content: str
    color: str = PLAIN


def colored(values: Float[np.ndarray, "h w"]) -> Image.Image:
    """A map in colours: dark is low, light is high, ends are the 2nd and 98th percentile."""
    low, high = np.percentile(values, (2, 98))
    levels = np.uint8(255 * np.clip((values - low) / max(high - low, 1e-12), 0, 1))
    return Image.fromarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1])


def framed(picture: Image.Image, color: str = "white") -> Image.Image:
    """The picture fitted into a square of `SIDE` pixels with a coloured frame."""
    inner = SIDE - 2 * _FRAME
    fitted = ImageOps.pad(picture, (inner, inner), Image.Resampling.BICUBIC, color="white")
    return ImageOps.expand(fitted, _FRAME, color)


def text_box(texts: Sequence[Text], width: int, height: int) -> Image.Image:
    """Wrapped paragraphs on white, cut with an ellipsis where the room ends."""
    box = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(box), ImageFont.load_default(_FONT_SIZE)
    wide, room = max(int(width / _CHARACTER), 1), height // LINE
    lines = [(line, t.color) for t in texts for line in textwrap.wrap(t.content, wide)]
    if len(lines) > room:
        line, color = lines[room - 1]
        lines = [*lines[: room - 1], (line[: wide - 1] + "…", color)]
    for number, (line, color) in enumerate(lines):
        pen.text((2, number * LINE), line, color, font)
    return box


def row(pictures: Sequence[Image.Image]) -> Image.Image:
    """Side by side, tops aligned."""
    width = sum(p.width for p in pictures) + _GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(p.height for p in pictures)), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + _GAP
    return sheet


def column(pictures: Sequence[Image.Image]) -> Image.Image:
    """One below the other, left edges aligned."""
    height = sum(p.height for p in pictures) + _GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (max(p.width for p in pictures), height), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height + _GAP
    return sheet


def grid(pictures: Sequence[Image.Image], across: int) -> Image.Image:
    """Rows of `across` pictures."""
    starts = range(0, len(pictures), across)
    return column([row(pictures[start : start + across]) for start in starts])
