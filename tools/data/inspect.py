# SPDX-License-Identifier: Apache-2.0
"""Draws a contact sheet of a store: `python -m tools.data.inspect STORE --output sheet.png`.

Every cell has the image with its boxes, phrases and points, one panel for each raster of the
sidecars (depth in colour, red near; label maps in arbitrary colours), the key and the caption; the
cell of a record that cannot be read says why. The bytes that a row takes are printed by holder.
"""

import argparse
import pathlib
import sys
import textwrap
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from input_pipeline import store
from input_pipeline.example import Column
from mtv_jax.core.errors import UserError, report_user_errors
from mtv_jax.core.fields import Field
from tools.data import checks

_SIDE = 224
_TEXT_HEIGHT = 64
_GAP = 8
_LINE = 13
_MAX_LABELS = 256  # a raster of more values is a measurement, not a label map
_COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


def draw_sheet(opened: store.Store, rows: Sequence[int]) -> Image.Image:
    """The cells of the given global rows on one sheet, about as wide as high."""
    cells = []
    for row in rows:
        at = opened.locate(int(row))
        try:
            columns = opened.read(at.shard, at.row, opened.fields)
            cells.append(_draw_cell(opened.fields, columns))
        except (OSError, ValueError, IndexError) as error:  # of the bytes that were written
            cells.append(_draw_fault(opened.fields, f"shard {at.shard} row {at.row}: {error}"))
    width, height = cells[0].width + _GAP, cells[0].height + _GAP
    across = max(1, min(len(cells), round((len(cells) * height / width) ** 0.5)))
    down = -(-len(cells) // across)
    sheet = Image.new("RGB", (across * width + _GAP, down * height + _GAP), "#d0d0d0")
    for number, cell in enumerate(cells):
        left, top = number % across * width, number // across * height
        sheet.paste(cell, (left + _GAP, top + _GAP))
    return sheet


def _empty_cell(fields: Mapping[str, Field]) -> Image.Image:
    panels = sum(bool(field.codec) for field in fields.values())
    return Image.new("RGB", (max(panels, 1) * _SIDE, _SIDE + _TEXT_HEIGHT), "white")


def _draw_fault(fields: Mapping[str, Field], fault: str) -> Image.Image:
    cell = _empty_cell(fields)
    font = ImageFont.load_default(11)
    text = textwrap.fill(fault, cell.width // 7)
    ImageDraw.Draw(cell).multiline_text((_GAP, _GAP), text, "#c00000", font)
    return cell


def _draw_cell(fields: Mapping[str, Field], columns: Mapping[str, Column]) -> Image.Image:
    rasters = [field for field in fields.values() if field.codec]
    rasters.sort(key=lambda field: field.codec != "image")
    cell = _empty_cell(fields)
    for panel, field in enumerate(rasters):
        if not columns.get(field.name):
            continue
        picture = _fitted(Image.fromarray(colored(field, columns[field.name])))
        if field.name == "image":
            _draw_labels(picture, fields, columns)
        corner = (panel * _SIDE + (_SIDE - picture.width) // 2, (_SIDE - picture.height) // 2)
        cell.paste(picture, corner)
    texts = [columns[store.KEY][0]]
    texts += [columns[f.name][0] for f in fields.values() if _is_caption(f) and f.name in columns]
    _draw_text(cell, [text.decode(errors="replace") for text in texts])
    return cell


def colored(field: Field, values: Column) -> np.ndarray:
    """uint8 [h, w, 3] for the eye."""
    raster = checks.decode_raster(field, values)
    if field.codec == "image":
        return raster
    if field.resample == "nearest" and raster.max() < _MAX_LABELS:
        palette = np.random.default_rng(0).integers(40, 255, (_MAX_LABELS, 3), np.uint8)
        palette[0] = 0
        return palette[raster]
    low, high = int(raster.min()), int(raster.max())
    gray = (raster.astype(np.float32) - low) * (255 / max(high - low, 1))
    return cv2.applyColorMap(gray.astype(np.uint8), cv2.COLORMAP_TURBO)[:, :, ::-1].copy()


def _fitted(picture: Image.Image) -> Image.Image:
    scale = _SIDE / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    return picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)


def _draw_labels(
    picture: Image.Image, fields: Mapping[str, Field], columns: Mapping[str, Column]
) -> None:
    """Draws boxes with their phrases, and points, onto the fitted image."""
    pen = ImageDraw.Draw(picture)
    size = np.array([picture.width, picture.height])
    for field in fields.values():
        values = columns.get(field.name, ())
        if field.geometry == "boxes":
            phrases = _phrases(field, fields, columns)
            for number, box in enumerate(np.reshape(values, (-1, 4))):
                corners = (box * np.tile(size, 2)).round().astype(int).tolist()
                color = _COLORS[number % len(_COLORS)]
                pen.rectangle(corners, outline=color, width=2)
                if number < len(phrases):
                    _draw_tag(pen, (corners[0], corners[1]), phrases[number], color)
        elif field.geometry == "points":
            for number, point in enumerate(np.reshape(values, (-1, 2))):
                center = (point * size).tolist()
                pen.circle(center, 3, fill=_COLORS[number % len(_COLORS)], outline="white")


def _phrases(boxes: Field, fields: Mapping[str, Field], columns: Mapping[str, Column]) -> list[str]:
    """The texts that run along the same axis as `boxes`."""
    axis = boxes.shape.split()[0]
    for field in fields.values():
        if field.dtype == "str" and field.shape == axis and field.name in columns:
            return [phrase.decode(errors="replace") for phrase in columns[field.name]]
    return []


def _draw_tag(pen: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, color: str) -> None:
    font = ImageFont.load_default(11)
    frame = pen.textbbox(corner, text, font)
    pen.rectangle(frame, fill=color)
    pen.text(corner, text, "white", font)


def _is_caption(field: Field) -> bool:
    return field.dtype == "str" and field.encode == "tokens"


def _draw_text(cell: Image.Image, texts: Sequence[str]) -> None:
    """The key on one line, below it the captions, wrapped and cut to the space there is."""
    pen, font = ImageDraw.Draw(cell), ImageFont.load_default(11)
    wide = cell.width // 6  # characters
    lines = [texts[0][:wide]]
    for text in texts[1:]:
        lines += textwrap.wrap(text, wide)
    room = _TEXT_HEIGHT // _LINE
    if len(lines) > room:
        lines = [*lines[: room - 1], lines[room - 1][: wide - 1] + "…"]
    for number, line in enumerate(lines):
        color = "#808080" if number == 0 else "black"
        pen.text((2, _SIDE + 1 + number * _LINE), line, color, font)


def choose_rows(opened: store.Store, count: int, selection: str | None) -> np.ndarray:
    """`count` global rows spread evenly over the store, or over a selection of it."""
    rows = opened.selection(selection) if selection else np.arange(opened.num_rows)
    if len(rows) == 0:
        raise UserError(f"{opened.path}: nothing to draw")
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def bytes_per_row(opened: store.Store) -> dict[str, float]:
    """Bytes on disk, indexes included, by what holds them: the base and each opened sidecar."""
    return {
        holder: sum(file.stat().st_size for file in opened.path.glob(f"{holder}-*.tfrecord*"))
        / max(opened.num_rows, 1)
        for holder in (store.BASE, *opened.opened_sidecars)
    }


@report_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tools.data.inspect", description=__doc__)
    parser.add_argument("store", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="PNG to write")
    parser.add_argument("--rows", type=int, default=24, help="cells on the sheet")
    parser.add_argument("--sidecars", help="comma-separated names (default: all)")
    parser.add_argument("--selection", help="draw from this selection only")
    parsed = parser.parse_args(arguments)
    if parsed.rows < 1:
        parser.error("--rows is at least 1")
    sidecars = store.Store.open(parsed.store).sidecars
    if parsed.sidecars is not None:
        sidecars = tuple(name for name in parsed.sidecars.split(",") if name)
    opened = store.Store.open(parsed.store, sidecars)
    sheet = draw_sheet(opened, choose_rows(opened, parsed.rows, parsed.selection))
    try:
        sheet.save(parsed.output, "PNG")
    except OSError as error:
        raise UserError(f"cannot write {parsed.output}: {error.strerror}") from error
    print(f"{parsed.output}: {sheet.width}x{sheet.height}")
    for holder, count in bytes_per_row(opened).items():
        print(f"{holder}: {count:,.0f} bytes a row")
    return 0


if __name__ == "__main__":
    sys.exit(main())
