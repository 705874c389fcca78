# SPDX-License-Identifier: Apache-2.0
"""Samples out of a plain folder of images.

The caption of `cats/01.jpg` is its row in a captions table, else `cats/01.txt`, else the `caption`
of `cats/01.json`, else there is none.
"""

import csv
import pathlib
from collections.abc import Iterator, Sequence

from mtv_jax.core.errors import UserError
from tools.data.sources import MAX_IMAGE_BYTES, MAX_TEXT_BYTES, ImageFile, Sample, unique_names

_FILE_COLUMNS = ("filename", "file_name", "filepath", "file", "image", "path")
_CAPTION_COLUMNS = ("caption", "title", "text")


def list_images(paths: Sequence[pathlib.Path], table: pathlib.Path | None) -> list[ImageFile]:
    """The images with their keys (paths below the folder they share) and captions.

    Args:
        paths: the image files.
        table: a CSV or TSV file of captions; None looks for one in the shared folder.

    Raises:
        UserError: the table cannot be used, or several could be.
    """
    keys = unique_names(paths)
    root = paths[0].parents[keys[0].count("/")]
    table = table or _find_table(root)
    captions = _read_table(table) if table else {}
    by_name = {} if any("/" in name for name in captions) else captions
    images = []
    for path, key in zip(paths, keys, strict=True):
        caption = captions.get(key, by_name.get(path.name, captions.get(str(path))))
        images.append(ImageFile(path, key, caption))
    if captions and not any(image.caption for image in images):
        raise UserError(f"{table} names none of the images below {root}: check its file column")
    return images


def read_samples(images: Sequence[ImageFile]) -> Iterator[Sample]:
    """One sample an image file."""
    for image in images:
        try:
            data = _read(image.path, MAX_IMAGE_BYTES)
            text = _read_if_there(image.path.with_suffix(".txt"))
            metadata = _read_if_there(image.path.with_suffix(".json"))
        except OSError:
            yield Sample(image.key, refusal="unreadable")
            continue
        if data is None:
            yield Sample(image.key, refusal="oversize_member")
            continue
        if image.caption is not None:
            text = image.caption.encode(errors="replace")
        yield Sample(image.key, data, text, metadata)


def _read(path: pathlib.Path, limit: int) -> bytes | None:
    """Content of the file, None where it is over `limit` bytes."""
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    return data if len(data) <= limit else None


def _read_if_there(path: pathlib.Path) -> bytes | None:
    return _read(path, MAX_TEXT_BYTES) if path.is_file() else None


def _find_table(root: pathlib.Path) -> pathlib.Path | None:
    tables = [path for path in sorted(root.glob("*.[ct]sv")) if _columns(path) is not None]
    if len(tables) > 1:
        raise UserError(
            f"{root} holds several captions tables ({', '.join(path.name for path in tables)}): "
            "choose one with --captions"
        )
    return tables[0] if tables else None


def _columns(table: pathlib.Path) -> tuple[str, str] | None:
    """Names of the file and of the caption column, None where `table` lacks one of them."""
    with open(table, newline="", encoding="utf-8-sig", errors="replace") as file:
        header = next(csv.reader(file, delimiter=_delimiter(table)), [])
    names = {name.strip().lower(): name for name in header}
    file_column = next((names[name] for name in _FILE_COLUMNS if name in names), None)
    caption_column = next((names[name] for name in _CAPTION_COLUMNS if name in names), None)
    return (file_column, caption_column) if file_column and caption_column else None


def _delimiter(table: pathlib.Path) -> str:
    with open(table, encoding="utf-8-sig", errors="replace") as file:
        return "\t" if "\t" in file.readline() else ","


def _read_table(table: pathlib.Path) -> dict[str, str]:
    """Caption by file name as the table spells it; of several for one file the first."""
    try:
        columns = _columns(table)
    except OSError as error:
        raise UserError(f"--captions {table}: {error.strerror}") from error
    if columns is None:
        raise UserError(
            f"{table} needs a column of files ({', '.join(_FILE_COLUMNS)}) and one of captions "
            f"({', '.join(_CAPTION_COLUMNS)})"
        )
    captions: dict[str, str] = {}
    with open(table, newline="", encoding="utf-8-sig", errors="replace") as file:
        try:
            for row in csv.DictReader(file, delimiter=_delimiter(table)):
                name = (row[columns[0]] or "").strip().removeprefix("./")
                captions.setdefault(name, row[columns[1]] or "")
        except csv.Error as error:
            raise UserError(f"{table} is not a table: {error}") from error
    return captions
