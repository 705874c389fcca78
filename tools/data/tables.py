# SPDX-License-Identifier: Apache-2.0
"""Samples out of tables with encoded images: those of img2dataset, those of Hugging Face.

The image is a column of bytes named after its format (img2dataset) or a column of structs with
`bytes` (the `Image` feature of `datasets`). Rows that img2dataset could not download say so in
their `status`. Tables are read a few rows at a time, so memory is bounded by an image's size.
"""

import abc
import dataclasses
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from mtv_jax.core.errors import UserError
from tools.data import sources
from tools.data.upstream import SUCCESS, LostRow

ROWS_AT_ONCE = 16
DAMAGE = (pa.ArrowException, OSError, ValueError)  # what pyarrow raises over bytes gone bad
_IMAGES = ("image", "jpg", "jpeg", "png", "webp", "img")
_KEYS = ("key", "__key__")
_SPLITS = frozenset({"train", "training", "test", "validation", "valid", "val", "dev"})
_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?")


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of the columns that are read; "" for one that is not there."""

    image: str
    caption: str
    key: str
    status: str
    error: str
    values: tuple[str, ...]

    @property
    def for_survey(self) -> list[str]:
        """Those that tell how many samples there are, and their keys."""
        return [name for name in (self.key, self.status) if name]

    @property
    def for_samples(self) -> list[str]:
        """All of them."""
        names = (self.image, self.caption, self.key, self.status, self.error, *self.values)
        return list(dict.fromkeys(name for name in names if name))


@dataclasses.dataclass(frozen=True)
class Damage:
    """Rows of a table that cannot be read, and why."""

    rows: int
    reason: str


class UnusableTable(Exception):
    """A table without images, or without the column of captions that the user names."""


@dataclasses.dataclass(frozen=True)
class TablePart(sources.Part):
    """One file of a table."""

    path: pathlib.Path
    options: sources.Options

    @abc.abstractmethod
    def schema(self) -> pa.Schema:
        """The columns of the file; one of `DAMAGE` where it cannot be opened."""

    @abc.abstractmethod
    def pieces(self, names: list[str]) -> Iterator[pa.RecordBatch | Damage]:
        """The columns `names` of all rows, few at once; one of `DAMAGE` where the rest is lost."""

    def fingerprint(self) -> str:
        return sources.fingerprint(self.name, [self.path])

    def columns(self) -> Columns:
        """What is read; `UnusableTable`, or one of `DAMAGE`."""
        return _find_columns(self.schema(), self.options)

    def survey(self) -> sources.Survey:
        count, keys = 0, set[str]()
        try:
            columns = self.columns()
            for found in _rows(self.pieces(columns.for_survey), columns, images=False):
                if isinstance(found, sources.Sample):
                    count += 1
                    keys.add(found.key)
        except (UnusableTable, sources.BrokenPart, *DAMAGE):
            pass  # said when the samples are read
        return sources.Survey(count, sources.hash_keys(keys))

    def samples(self) -> Iterator[sources.Sample | LostRow]:
        try:
            columns = self.columns()
        except (UnusableTable, *DAMAGE) as error:
            raise sources.BrokenPart(sources.in_one_line(error)) from error
        yield from _rows(self.pieces(columns.for_samples), columns, images=True)


_AnyPart = TypeVar("_AnyPart", bound=TablePart)


def make_parts(
    kind: type[_AnyPart], paths: Sequence[pathlib.Path], options: sources.Options
) -> list[_AnyPart]:
    """One part a file of the split that is wanted.

    Raises:
        UserError: there is no such split, the first file that opens cannot be used, or none opens.
    """
    chosen = _of_split(paths, options.split)
    names = sources.short_names(chosen)
    parts = [kind(name, path, options) for name, path in zip(names, chosen, strict=True)]
    fault = ""
    for part in parts:
        try:
            part.columns()
            return parts
        except UnusableTable as error:
            raise UserError(f"{part.path} {error}") from error
        except DAMAGE as error:
            fault = f"{part.path} cannot be read ({sources.in_one_line(error)}): get it anew"
    raise UserError(fault)


def holds_images(schema: pa.Schema) -> bool:
    """Whether a table has a column of encoded images."""
    return bool(_image_column(schema))


def _split_of(path: pathlib.Path) -> str:
    """The split that a file belongs to, by its name or its folder's; "" if they do not tell."""
    match = _SHARD.fullmatch(path.stem)
    if match and match[1] != "data":
        return match[1]
    if match and (path.parent.parent / "dataset_dict.json").exists():
        return path.parent.name
    return next((name for name in (path.stem, path.parent.name) if name in _SPLITS), "")


def _of_split(paths: Sequence[pathlib.Path], split: str | None) -> list[pathlib.Path]:
    """The files of one split, `train` unless said; all of them where there is no choice.

    Raises:
        UserError: there is no such split.
    """
    splits = sorted({_split_of(path) for path in paths})
    if split is None and len(splits) == 1:
        return list(paths)
    wanted = split or sources.DEFAULT_SPLIT
    if wanted not in splits:
        raise UserError(
            f"--input has no split {wanted!r} (it has: {', '.join(filter(None, splits)) or 'none'})"
            ": name one with --split, or give the files by a pattern"
        )
    left = [name or "files of no split" for name in splits if name != wanted]
    if left:
        print(f"note: reading the split {wanted}, leaving {', '.join(left)}", file=sys.stderr)
    return [path for path in paths if _split_of(path) == wanted]


def _rows(
    pieces: Iterator[pa.RecordBatch | Damage], columns: Columns, *, images: bool
) -> Iterator[sources.Sample | LostRow]:
    """Every row in order; with `images` false only keys and statuses are there and used."""
    faults, seen, row = [], set[str](), 0
    try:
        for piece in pieces:
            if isinstance(piece, Damage):
                faults.append(f"rows {row} to {row + piece.rows - 1}: {piece.reason}")
                for lost in range(row, row + piece.rows):
                    key = f"row {lost}" if columns.key else sources.row_key(lost)
                    yield sources.Sample(key, refusal="unreadable")
                row += piece.rows
                continue
            for found in _piece(piece, columns, row, images=images):
                if isinstance(found, sources.Sample):
                    if found.key in seen:
                        found = sources.Sample(found.key, refusal="duplicate_key")
                    seen.add(found.key)
                yield found
            row += piece.num_rows
    except DAMAGE as error:
        faults.append(f"breaks off after row {row} ({sources.in_one_line(error)})")
    if faults:
        more = f"; and {len(faults) - 1} times more" if len(faults) > 1 else ""
        raise sources.BrokenPart(faults[0] + more)


def _piece(
    batch: pa.RecordBatch, columns: Columns, first: int, *, images: bool
) -> Iterator[sources.Sample | LostRow]:
    def column(name: str) -> list[Any]:
        return _values(batch.column(name)) if name else [None] * batch.num_rows

    keys = [
        sources.row_key(row) if value is None else _name(value)
        for row, value in enumerate(column(columns.key), first)
    ]
    statuses = column(columns.status) if columns.status else [SUCCESS.encode()] * len(keys)
    errors = column(columns.error if images else "")
    encoded, texts = (column(name if images else "") for name in (columns.image, columns.caption))
    others = {name.lower(): column(name) for name in columns.values if images}
    for row, (key, status) in enumerate(zip(keys, statuses, strict=True)):
        if status != SUCCESS.encode():
            error = None if errors[row] is None else _name(errors[row])
            yield LostRow(key, "unknown" if status is None else _name(status), error)
            continue
        if images and (refusal := _refusal(encoded[row], texts[row])):
            yield sources.Sample(key, refusal=refusal)
            continue
        values = {name: value[row] for name, value in others.items()}
        yield sources.Sample(key, encoded[row] or b"", texts[row], values=values)


def _refusal(image: bytes | None, text: bytes | None) -> str:
    if image is None:
        return "no_image"
    too_large = len(image) > sources.MAX_IMAGE_BYTES or len(text or b"") > sources.MAX_TEXT_BYTES
    return "oversize_member" if too_large else ""


def _name(value: Any) -> str:
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)


def _values(column: pa.Array) -> list[Any]:
    """The column in Python; text as bytes, which need not be UTF-8, and of a list its first."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    if _is_list(column.type):
        firsts = pc.list_slice(column, 0, 1).cast(pa.list_(pa.large_binary())).to_pylist()
        return [first[0] if first else None for first in firsts]
    return (column.cast(pa.large_binary()) if _is_text(column.type) else column).to_pylist()


def _find_columns(schema: pa.Schema, options: sources.Options) -> Columns:
    image = _image_column(schema)
    has = f"(it has: {', '.join(schema.names)})"
    if not image:
        raise UnusableTable(
            f"has no column of encoded images {has}; URLs are downloaded with img2dataset first"
        )
    if len(set(schema.names)) < len(schema.names):
        raise UnusableTable(f"has two columns of one name {has}")
    names = {field.name.lower(): field.name for field in reversed(list(schema))}
    texts = [
        name
        for name in sources.CAPTION_COLUMNS
        if name in names and _is_caption(schema, names[name])
    ]
    caption = names[texts[0]] if texts else ""
    if options.caption_column:
        caption = names.get(options.caption_column.lower(), "")
        if not caption:
            raise UnusableTable(f"has no column {options.caption_column} {has}")
        if not _is_caption(schema, caption):
            raise UnusableTable(f"holds {schema.field(caption).type} in {caption}, not text")
    simple = [name for name in options.keep_columns if name in names]
    simple = [names[name] for name in simple if _is_simple(schema.field(names[name]).type)]
    status, error = (names.get(name, "") for name in ("status", "error_message"))
    key = next((names[name] for name in _KEYS if name in names), "")
    for name in (key, status, error):
        if name and not _is_simple(schema.field(name).type):
            raise UnusableTable(f"holds {schema.field(name).type} in {name}")
    downloaded = status and error  # another table may have a status of its own
    return Columns(
        image, caption, key, *((status, error) if downloaded else ("", "")), tuple(simple)
    )


def _image_column(schema: pa.Schema) -> str:
    """The column of images; "" if none."""
    encoded = [field.name for field in schema if _is_image(field.type)]
    known = [name for image in _IMAGES for name in encoded if name.lower() == image]
    return (known or (encoded if len(encoded) == 1 else [""]))[0]


def _is_image(column: pa.DataType) -> bool:
    if pa.types.is_struct(column):
        position = column.get_field_index("bytes")
        return position >= 0 and _is_bytes(column.field(position).type)
    return _is_bytes(column)


def _is_caption(schema: pa.Schema, name: str) -> bool:
    column = schema.field(name).type
    return _is_text(column.value_type if _is_list(column) else column)


def _is_simple(column: pa.DataType) -> bool:
    """One text or number a row, or nothing in any."""
    if pa.types.is_dictionary(column):
        return _is_simple(column.value_type)
    number = pa.types.is_integer(column) or pa.types.is_floating(column)
    return number or _is_text(column) or pa.types.is_null(column)


def _is_text(column: pa.DataType) -> bool:
    if pa.types.is_dictionary(column):
        return _is_text(column.value_type)
    text = pa.types.is_string(column) or pa.types.is_large_string(column)
    return text or pa.types.is_string_view(column) or _is_bytes(column)


def _is_bytes(column: pa.DataType) -> bool:
    binary = pa.types.is_binary(column) or pa.types.is_large_binary(column)
    return binary or pa.types.is_binary_view(column)


def _is_list(column: pa.DataType) -> bool:
    return pa.types.is_list(column) or pa.types.is_large_list(column)
