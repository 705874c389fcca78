# SPDX-License-Identifier: Apache-2.0
"""Files of boxes with phrases: JSON lines and COCO instances, read one image at a time."""

import array
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from mtv_jax.core.errors import UserError
from mtv_jax.core.progress import Progress
from tools.data import digests
from tools.data.sources import IMAGE_SUFFIXES
from tools.data.verify import Findings

Unit = Literal["pixels", "fraction"]

_HUGE = 1e30  # above it, a number is damage, and may not fit float32
_SURELY_PIXELS = 1.5  # a fraction leaves the image by rounding, not by half of it
_FORMATS = (
    'neither JSON lines, {"key", "width", "height", "regions"} for each image, nor COCO instances, '
    "one object with images, annotations and categories"
)


class _Malformed(Exception):
    """What is wrong with a record, in words."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a file says of one image.

    Attributes:
        key: names the image.
        size: (height, width) of the image that the boxes refer to, in pixels.
        boxes: float64 [r, 4], xyxy, as given.
        phrases: r texts, as given.
        scores: float64 [r].
    """

    key: str
    size: tuple[float, float]
    boxes: np.ndarray
    phrases: tuple[str, ...]
    scores: np.ndarray


class Entries:
    """The entries of JSON lines by name. Memory is 16 bytes an image, shared by all processes.

    Args:
        lines: the file.
        index: uint64 [2, n], an .npy: hashes of names, ascending, and where their lines start.
    """

    def __init__(self, lines: pathlib.Path, index: pathlib.Path):
        self._paths = lines, index
        self._hashes, self.starts = np.load(index, mmap_mode="r")

    def __reduce__(self) -> tuple[type, tuple[pathlib.Path, pathlib.Path]]:
        return Entries, self._paths

    def find(self, key: str) -> list[int]:
        """Where the entries of the row `key` start."""
        hashed = np.uint64(_hash(row_name(key)))
        first = np.searchsorted(self._hashes, hashed, "left")
        last = np.searchsorted(self._hashes, hashed, "right")
        return sorted(int(start) for start in self.starts[first:last])

    def read(self, start: int) -> Entry:
        """The entry whose line starts there."""
        with open(self._paths[0], "rb") as file:
            file.seek(start)
            return _parse(file.readline())


def row_name(key: str) -> str:
    """What the keys of a row and of its entry have in common: all but the ending of an image."""
    stem, ending = os.path.splitext(key)
    return stem if ending.lower() in IMAGE_SUFFIXES else key


def index_entries(path: pathlib.Path, unit: Unit, folder: pathlib.Path) -> tuple[Entries, Findings]:
    """The entries of a file, all checked, and what of it is no region.

    Args:
        path: JSON lines or COCO instances.
        unit: what the coordinates of its boxes are.
        folder: is given an index and, for COCO, the entries as JSON lines.

    Raises:
        UserError: the file cannot be read, an entry is malformed, or the unit is another.
    """
    passed_over = Findings()
    coco = _load_coco(path)
    lines, noun = path, "line"
    if coco is not None:
        lines, noun = folder / "coco.jsonl", "image"
        with open(lines, "w") as file:
            for record in _coco_records(path, coco, passed_over):
                file.write(json.dumps(record) + "\n")
    hashes, starts, largest = array.array("Q"), array.array("Q"), -np.inf
    for number, (start, line) in enumerate(_numbered(lines), 1):
        if not line.strip():
            continue
        try:
            entry = _parse(line)
            most = entry.boxes.max(initial=-np.inf)
            if unit == "fraction" and most > _SURELY_PIXELS:
                raise _Malformed(f"{most:g} is no fraction: want --boxes pixels")
        except _Malformed as error:
            raise UserError(f"{path} {noun} {number}: {error}") from error
        hashes.append(_hash(row_name(entry.key)))
        starts.append(start)
        largest = max(largest, most)
    if unit == "pixels" and -np.inf < largest <= 1:
        raise UserError(f"{path}: no coordinate is above 1, these are no pixels: --boxes fraction")
    if not starts:
        raise UserError(f"--regions {path} holds no image")
    table = np.array([hashes, starts], np.uint64)
    index = folder / "index.npy"
    np.save(index, table[:, np.argsort(table[0], kind="stable")])
    return Entries(lines, index), passed_over


def _numbered(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """Every line with its start."""
    start, total = 0, path.stat().st_size
    progress = Progress(path.name, total, unit="bytes")
    with open(path, "rb") as file:
        for line in file:
            yield start, line
            start += len(line)
            progress.show(start)
    progress.finish(start)


def _load_coco(path: pathlib.Path) -> Mapping[str, Any] | None:
    """The whole file where it is one COCO object; None where its first line is an entry."""
    try:
        with open(path, "rb") as file:
            first = next((line for line in file if line.strip()), b"")
            if not first:
                raise UserError(f"--regions {path} is empty")
            try:
                record = json.loads(first)
            except ValueError:
                file.seek(0)
                record = json.loads(file.read())
    except OSError as error:
        raise UserError(f"--regions {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise UserError(f"{path} line {line}: {_FORMATS} ({error})") from error
    if isinstance(record, dict) and {"images", "annotations"} <= record.keys():
        return record
    if isinstance(record, dict) and {"key", "width", "height", "regions"} & record.keys():
        return None
    raise UserError(f"{path} line 1: {_FORMATS}")


def _hash(name: str) -> int:
    return digests.of_bytes(name.encode(errors="surrogatepass"))


def _parse(line: bytes) -> Entry:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise _Malformed(f"no JSON object ({error})") from error
    size = _side(record, "height"), _side(record, "width")
    boxes, phrases, scores = [], [], []
    for number, region in enumerate(_member(record, "regions", list), 1):
        try:
            boxes.append(_box(_member(region, "box", object)))
            phrases.append(_member(region, "phrase", str))
            score = region.get("score", 1.0)
            if not _is_number(score):
                raise _Malformed(f"score {score}: want a finite number")
            scores.append(score)
        except _Malformed as error:
            raise _Malformed(f"region {number}: {error}") from error
    return Entry(
        key=_member(record, "key", str),
        size=size,
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        phrases=tuple(phrases),
        scores=np.array(scores, np.float64),
    )


def _coco_records(
    path: pathlib.Path, coco: Mapping[str, Any], passed_over: Findings
) -> Iterator[dict[str, Any]]:
    """One entry an image, as JSON lines have them."""
    where = "categories"
    try:
        names = {_id(c, "id"): _member(c, "name", str) for c in _member(coco, "categories", list)}
        where = "images"
        images = {_id(image, "id"): image for image in _member(coco, "images", list)}
        if len(images) < len(coco["images"]):
            raise _Malformed("several have the same id")
        regions: dict[int | str, list[dict[str, Any]]] = {number: [] for number in images}
        for number, annotation in enumerate(_member(coco, "annotations", list), 1):
            where = f"annotation {number}"
            owner, category = _id(annotation, "image_id"), _id(annotation, "category_id")
            if annotation.get("iscrowd"):
                passed_over.add("crowd annotations", f"annotation {number}")
                continue
            left, top, width, height = _box(_member(annotation, "bbox", object))
            if owner not in images or category not in names:
                raise _Malformed(f"no image {owner} or no category {category} in the file")
            regions[owner].append(
                {
                    "box": [left, top, left + width, top + height],
                    "phrase": names[category],
                    "score": annotation.get("score", 1.0),
                }
            )
        for number, image in enumerate(images.values(), 1):
            where = f"image {number}"
            sides = {side: _side(image, side) for side in ("width", "height")}
            key = _member(image, "file_name", str)
            yield {"key": key, **sides, "regions": regions[image["id"]]}
    except _Malformed as error:
        raise UserError(f"{path} {where}: {error}") from error


def _member(record: Any, name: str, kind: type) -> Any:
    if not isinstance(record, dict):
        raise _Malformed(f"want an object, not {record!r:.40}")
    if name not in record:
        raise _Malformed(f"has no {name}")
    if not isinstance(record[name], kind):
        raise _Malformed(f"{name} {record[name]!r:.40}: want {_KINDS[kind]}")
    return record[name]


_KINDS = {str: "a text", list: "a list"}


def _id(record: Any, name: str) -> int | str:
    value = _member(record, name, object)
    if not isinstance(value, int | str):
        raise _Malformed(f"{name} {value!r:.40}: want a whole number or a text")
    return value


def _side(record: Any, name: str) -> float:
    value = _member(record, name, object)
    if not _is_number(value) or value <= 0:
        raise _Malformed(f"{name} {value!r:.40}: want a number of pixels")
    return value


def _box(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        raise _Malformed(f"box {value!r:.80}: want 4 finite numbers")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE
