# SPDX-License-Identifier: Apache-2.0
"""Samples out of a data set that TensorFlow Datasets prepared, read without TensorFlow.

That is a folder `NAME/CONFIG/1.0.0/` with `dataset_info.json`, `features.json` and the shards of
its splits, `NAME-train.tfrecord-00000-of-00064` or the same as `array_record`.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import example
from mtv_jax.core.errors import UserError
from tools.data import record_files, sources

_RECORD_BYTES = sources.MAX_IMAGE_BYTES + (16 << 20)  # beside the image may lie a lot


@dataclasses.dataclass(frozen=True)
class Columns:
    """What is read of an example, by names as records have them.

    Attributes:
        image: the image.
        caption: the caption; "" if there is none.
        classes: names of the classes where `caption` is a class; empty where it is text.
        values: other numbers and texts.
    """

    image: str
    caption: str
    classes: tuple[str, ...]
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TfdsPart(sources.Part):
    """One shard: its file and format, and how many records there should be."""

    path: pathlib.Path
    file_format: str
    rows: int
    columns: Columns

    def fingerprint(self) -> str:
        return sources.fingerprint(self.name, [self.path], [repr(self.columns)])

    def survey(self) -> sources.Survey:
        return sources.Survey(self.rows, sources.hash_keys(map(sources.row_key, range(self.rows))))

    def samples(self) -> Iterator[sources.Sample]:
        read = record_files.READERS[self.file_format]
        row = 0
        try:
            for record in read(self.path, _RECORD_BYTES):
                yield self._sample(sources.row_key(row), record)
                row += 1
        except (record_files.BrokenFile, OSError) as error:
            raise sources.BrokenPart(sources.in_one_line(error)) from error
        if row != self.rows:
            raise sources.BrokenPart(f"has {row} records, dataset_info.json says {self.rows}")

    def _sample(self, key: str, record: bytes | record_files.Unreadable) -> sources.Sample:
        if isinstance(record, record_files.Unreadable):
            return sources.Sample(key, refusal=record)
        names = (self.columns.image, self.columns.caption, *self.columns.values)
        try:
            features = example.decode(record, names)
        except (ValueError, TypeError):
            return sources.Sample(key, refusal="unreadable")
        image = _first(features, self.columns.image)
        text = self._caption(_first(features, self.columns.caption))
        if not isinstance(image, bytes):
            return sources.Sample(key, refusal="no_image")
        if len(image) > sources.MAX_IMAGE_BYTES or len(text or b"") > sources.MAX_TEXT_BYTES:
            return sources.Sample(key, refusal="oversize_member")
        values = {name: _first(features, name) for name in self.columns.values}
        return sources.Sample(key, image, text, values=values)

    def _caption(self, value: Any) -> bytes | None:
        if isinstance(value, bytes):
            return value
        if not isinstance(value, np.integer) or not 0 <= value < len(self.columns.classes):
            return None
        return self.columns.classes[value].encode()


def _first(features: Mapping[str, example.Column], name: str) -> Any:
    column = features.get(name, [])
    return column[0] if len(column) else None


def _claim(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    known = set(paths)
    return [
        path
        for path in paths
        if path.name == "features.json" and path.with_name("dataset_info.json") in known
    ]


def _parts(
    paths: Sequence[pathlib.Path], root: pathlib.Path, options: sources.Options
) -> list[TfdsPart]:
    if len(paths) > 1:
        folders = ", ".join(str(path.parent) for path in paths)
        raise UserError(f"several prepared data sets ({folders}): give one of them as --input")
    folder = paths[0].parent
    split = options.split or sources.DEFAULT_SPLIT
    info, features = (_json(folder / name) for name in ("dataset_info.json", "features.json"))
    try:
        columns = _columns(folder, features["featuresDict"]["features"], options)
        shards, file_format = _shards(folder, info, split)
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder}: its features.json and dataset_info.json are not those of TFDS 4.9 "
            f"({error!r}): prepare the data set anew"
        ) from error
    for path in shards:
        if not path.is_file():
            raise UserError(f"{path} is missing: copy it, or prepare the data set anew")
    return [
        TfdsPart(f"{split}-{shard:05d}", path, file_format, rows, columns)
        for shard, (path, rows) in enumerate(shards.items())
    ]


KIND = sources.Kind(
    "folders of TFDS",
    frozenset({".json", ".txt", ".tfrecord", ".array_record"}),
    claim=_claim,
    parts=_parts,
    options=("caption_column", "split"),
    settings=("caption_column",),
)


def _json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): prepare the data set anew") from error


def _shards(
    folder: pathlib.Path, info: Mapping[str, Any], split: str
) -> tuple[dict[pathlib.Path, int], str]:
    """The files of a split, with how many records each has, and their format."""
    file_format = info.get("fileFormat", "tfrecord")
    if file_format not in record_files.READERS:
        raise UserError(
            f"{folder} is prepared as {file_format}: prepare it as "
            f"{' or '.join(record_files.READERS)} (`tfds build --file_format=array_record`)"
        )
    splits = {entry["name"]: entry for entry in info["splits"]}
    if split not in splits:
        raise UserError(f"{folder} has no split {split!r}: give --split {' or '.join(splits)}")
    rows = [int(count) for count in splits[split].get("shardLengths", [])]
    template = splits[split].get("filepathTemplate", "")
    template = template or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    shards = {}
    for number, count in enumerate(rows):
        index, of = f"{number:05d}", f"{len(rows):05d}"
        name = template.format(
            DATASET=info["name"],
            SPLIT=split,
            FILEFORMAT=file_format,
            SHARD_X_OF_Y=f"{index}-of-{of}",
            SHARD_INDEX=index,
            NUM_SHARDS=of,
        )
        shards[folder / name] = count
    return shards, file_format


def _columns(
    folder: pathlib.Path, features: Mapping[str, Any], options: sources.Options
) -> Columns:
    kinds = ", ".join(f"{name}: {_kind(feature)}" for name, feature in features.items())
    images = [name for name, feature in features.items() if _kind(feature) == "Image"]
    if "image" not in images and len(images) != 1:
        raise UserError(f"{folder} needs an Image feature, one or named image (it has: {kinds})")
    caption, classes = options.caption_column or "", ()
    if not caption:
        columns = (_text_column(name, features) for name in (*sources.CAPTION_COLUMNS, "captions"))
        caption = next(filter(None, columns), "")
    elif caption not in features:
        raise UserError(f"{folder} has no column {caption} (it has: {kinds})")
    elif _kind(features[caption]) == "ClassLabel":
        classes = _class_names(folder / f"{caption}.labels.txt")
    else:
        caption = _text_column(caption, features)
        if not caption:
            raise UserError(f"{folder}: {options.caption_column} is no text (it has: {kinds})")
    values = tuple(name for name in features if name.lower() in options.keep_columns)
    return Columns("image" if "image" in images else images[0], caption, classes, values)


def _kind(feature: Mapping[str, Any]) -> str:
    """The class of a feature; string tensors are texts."""
    if feature.get("tensor", {}).get("dtype") == "string":
        return "Text"
    return feature["pythonClassName"].rpartition(".")[2]


def _text_column(name: str, features: Mapping[str, Any], prefix: str = "") -> str:
    """How records call the text of a feature: itself, a sequence of it, or one inside; "" if none.

    A sequence inside a sequence is stored in another way and not read.
    """
    feature = features.get(name)
    if feature is None:
        return ""
    sequence = feature.get("sequence")
    feature = sequence["feature"] if sequence else feature
    if _kind(feature) == "Text":
        return prefix + name
    inside = {} if prefix else feature.get("featuresDict", {}).get("features", {})
    single = {key: value for key, value in inside.items() if not value.get("sequence")}
    return next(
        filter(None, (_text_column(k, single, f"{name}/") for k in sources.CAPTION_COLUMNS)), ""
    )


def _class_names(path: pathlib.Path) -> tuple[str, ...]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): the classes have no names") from error
    return tuple(line.strip() for line in lines if line.strip())
