# SPDX-License-Identifier: Apache-2.0
"""Samples out of a plain folder of images.

The caption of `cats/01.jpg` is its row in a captions table, else `cats/01.txt`, else the `caption`
of `cats/01.json`, else there is none.
"""

import collections
import csv
import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from mtv_jax.core.errors import UserError
from tools.data import sources
from tools.data.sources import (
    CAPTION_COLUMNS,
    CAPTION_SUFFIXES,
    IMAGE_SUFFIXES,
    MAX_IMAGE_BYTES,
    MAX_TEXT_BYTES,
)

_FILE_COLUMNS = ("filename", "file_name", "filepath", "file", "image", "path")
_DELIMITERS = "\t;,"


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """An image of a folder: its path, its key, and its caption where a table gives one."""

    path: pathlib.Path
    key: str
    caption: str | None = None


@dataclasses.dataclass(frozen=True)
class ImagesPart(sources.Part):
    """A run of image files."""

    images: tuple[ImageFile, ...]

    def fingerprint(self) -> str:
        paths = [
            path
            for image in self.images
            for path in (image.path, *map(image.path.with_suffix, CAPTION_SUFFIXES))
        ]
        texts = (f"{image.key} {image.caption}" for image in self.images)
        return sources.fingerprint(self.name, paths, texts)

    def survey(self) -> sources.Survey:
        return sources.Survey(len(self.images), np.zeros(0, np.uint64))  # paths differ

    def samples(self) -> Iterator[sources.Sample]:
        return read_samples(self.images)


@dataclasses.dataclass(frozen=True)
class _Columns:
    """How a captions table is read: its delimiter, the names of the two columns that count."""

    delimiter: str
    file: str
    caption: str


def list_images(
    paths: Sequence[pathlib.Path], root: pathlib.Path, table: pathlib.Path | None
) -> list[ImageFile]:
    """The images with their keys (paths below the folder they share) and captions.

    A row of the table names an image by its path below the table's folder, below `root`, below the
    folder the images share, by its absolute path, or by its bare name where one image has it.

    Args:
        paths: the image files.
        root: the folder that the input names.
        table: a file of captions, parted by tab, semicolon or comma; None looks for one in `root`
            and in the folder the images share.

    Raises:
        UserError: the table cannot be used, or several could be.
    """
    keys = sources.unique_names(paths)
    shared = paths[0].parents[keys[0].count("/")]
    table = table or _find_table({root, shared})
    if table is None:
        return [ImageFile(path, key) for path, key in zip(paths, keys, strict=True)]
    captions = _read_table(table)
    prefixes = [os.path.relpath(shared, table.parent), os.path.relpath(shared, root), ""]
    prefixes += [str(shared), os.path.abspath(shared)]
    namesakes = collections.Counter(path.name for path in paths)
    images, used = [], set()
    for path, key in zip(paths, keys, strict=True):
        names = [os.path.normpath(os.path.join(prefix, key)) for prefix in prefixes]
        names += [path.name] if namesakes[path.name] == 1 else []
        name = next((name for name in names if name in captions), "")
        used.add(name)
        images.append(ImageFile(path, key, captions.get(name)))
    used.discard("")
    if captions and not used:
        raise UserError(f"{table} names none of the images below {root}: check its file column")
    captioned = sum(bool(image.caption) for image in images)
    print(
        f"captions: {table} has those of {captioned:,} of {len(images):,} images, and names "
        f"{len(captions) - len(used):,} files that are not among them",
        file=sys.stderr,
    )
    return images


def read_samples(images: Sequence[ImageFile]) -> Iterator[sources.Sample]:
    """One sample an image file."""
    for image in images:
        try:
            data = _read(image.path, MAX_IMAGE_BYTES)
            text = _read_if_there(image.path.with_suffix(".txt"))
            metadata = _read_if_there(image.path.with_suffix(".json"))
        except OSError:
            yield sources.Sample(image.key, refusal="unreadable")
            continue
        if data is None:
            yield sources.Sample(image.key, refusal="oversize_member")
            continue
        if image.caption is not None:
            text = image.caption.encode(errors="replace")
        yield sources.Sample(image.key, data, text, metadata)


def claim(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """The image files among `paths`."""
    return [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]


def image_parts(
    paths: Sequence[pathlib.Path], root: pathlib.Path, options: sources.Options
) -> list[ImagesPart]:
    """Runs of `rows_per_shard` image files, each named by its first key."""
    images = list_images(paths, root, options.captions)
    starts = range(0, len(images), options.rows_per_shard)
    runs = [tuple(images[start : start + options.rows_per_shard]) for start in starts]
    return [ImagesPart(run[0].key, run) for run in runs]


KIND = sources.Kind(
    "images",
    frozenset({*IMAGE_SUFFIXES, *CAPTION_SUFFIXES, ".csv", ".tsv"}),
    claim=claim,
    parts=image_parts,
    options=("captions", "rows_per_shard"),
    settings=("rows_per_shard",),
)


def _read(path: pathlib.Path, limit: int) -> bytes | None:
    """Content of the file, None where it is over `limit` bytes."""
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    return data if len(data) <= limit else None


def _read_if_there(path: pathlib.Path) -> bytes | None:
    return _read(path, MAX_TEXT_BYTES) if path.is_file() else None


def _find_table(folders: set[pathlib.Path]) -> pathlib.Path | None:
    found = {path for folder in folders for path in folder.glob("*.[ct]sv") if path.is_file()}
    tables = [path for path in sorted(found) if _columns(path)]
    if len(tables) > 1:
        raise UserError(
            f"several captions tables ({', '.join(map(str, tables))}): choose one with --captions"
        )
    if others := sorted(found.difference(tables)):
        names = ", ".join(map(str, others))
        print(f"note: {names}: no columns of files and captions, not used", file=sys.stderr)
    return tables[0] if tables else None


def _columns(table: pathlib.Path) -> _Columns | None:
    """What the header of `table` says, None where it lacks one of the columns."""
    for delimiter in _DELIMITERS:
        with open(table, newline="", encoding="utf-8-sig", errors="replace") as file:
            try:
                header = next(csv.reader(file, delimiter=delimiter), [])
            except csv.Error:
                continue
        names = {name.strip().lower(): name for name in header}
        files = [names[name] for name in _FILE_COLUMNS if name in names]
        captions = [names[name] for name in CAPTION_COLUMNS if name in names]
        if files and captions:
            return _Columns(delimiter, files[0], captions[0])
    return None


def _read_table(table: pathlib.Path) -> dict[str, str]:
    """Caption by normalised path; of several for one file the first."""
    try:
        columns = _columns(table)
    except OSError as error:
        raise UserError(f"--captions {table}: {error.strerror}") from error
    if columns is None:
        raise UserError(
            f"{table} needs a column of files ({', '.join(_FILE_COLUMNS)}) and one of captions "
            f"({', '.join(CAPTION_COLUMNS)})"
        )
    captions: dict[str, str] = {}
    with open(table, newline="", encoding="utf-8-sig", errors="replace") as file:
        try:
            for row in csv.DictReader(file, delimiter=columns.delimiter):
                name = os.path.normpath((row[columns.file] or "").strip())
                captions.setdefault(name, row[columns.caption] or "")
        except csv.Error as error:
            raise UserError(f"{table} is not a table: {error}") from error
    return captions
