# SPDX-License-Identifier: Apache-2.0
"""ImageNet-1k as TensorFlow Datasets prepares it, read without TensorFlow."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from input_pipeline import decode, example, tfrecord
from input_pipeline.layouts.base import Item
from input_pipeline.layouts.imagenet import ImageNetImages

_CLASSES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageNetTfds(ImageNetImages):
    """`ROOT/imagenet2012/5.1.0/imagenet2012-validation.tfrecord-00000-of-00064`.

    An index of offsets appears beside each shard unless the folder is read-only.

    Attributes:
        split: "validation" or "train".
        version: of the data set.
    """

    split: str = "validation"
    version: str = "5.1.0"

    @property
    def source(self) -> str:
        return (
            "https://www.tensorflow.org/datasets/catalog/imagenet2012 "
            "(`tfds build imagenet2012 --file_format=tfrecord`; ROOT is its data_dir)"
        )

    def find(self) -> Sequence[Item[int]]:
        """Every row of every shard."""
        folder = self.folder(self._home)
        names = self.text(f"{self._home}/label.labels.txt").split()
        if len(names) != _CLASSES or names != sorted(set(names)):
            raise self.damaged(
                f"label.labels.txt does not name {_CLASSES} classes in the order of WordNet ids"
            )
        shards = self._shards()
        return [Item(folder / name, row) for name, rows in shards.items() for row in range(rows)]

    def open(self) -> None:
        """Raises a `UserError` when shards are missing, cut short, or of another preparation."""
        super().open()
        promised = self._shards()
        for path in dict.fromkeys(item.path for item in self.items):
            try:
                rows = len(_records(path))
            except tfrecord.RecordError as error:
                raise self.damaged(str(error)) from error
            if rows != promised[path.name]:
                raise self.damaged(
                    f"{path.name} has {rows} images, dataset_info.json says {promised[path.name]}"
                )

    def pixels(self, item: Item[int]) -> UInt8[np.ndarray, "h w 3"]:
        return decode.decode_image(_feature(item, "image"))

    def labels(self) -> Int64[np.ndarray, " b"]:
        """Classes in the order of their WordNet ids; reads every record, once."""
        return _labels(self)

    @property
    def _home(self) -> str:
        return f"imagenet2012/{self.version}"

    def _shards(self) -> dict[str, int]:
        """How many images each shard of the split has, by its file's name."""
        name = f"{self._home}/dataset_info.json"
        info = self.json(name)
        try:
            splits = {split["name"]: split for split in info["splits"]}
            rows = [int(count) for count in splits[self.split]["shardLengths"]]
            file_format = info.get("fileFormat", "tfrecord")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.damaged(f"{name} has no shards of {self.split}: {error!r}") from error
        if file_format != "tfrecord":
            raise self.damaged(f"it is prepared as {file_format}, only tfrecord is read here")
        prefix, shards = f"imagenet2012-{self.split}.tfrecord", len(rows)
        return {f"{prefix}-{k:05d}-of-{shards:05d}": count for k, count in enumerate(rows)}


@functools.lru_cache(maxsize=256)
def _records(path: pathlib.Path) -> tfrecord.RecordFile:
    return tfrecord.RecordFile(path)


@functools.lru_cache(maxsize=8)
def _labels(layout: ImageNetTfds) -> Int64[np.ndarray, " b"]:
    try:
        labels = np.asarray([_feature(item, "label") for item in layout.items], np.int64)
    except decode.DecodeError as error:
        raise layout.damaged(str(error)) from error
    if labels.min() < 0 or labels.max() >= _CLASSES:
        raise layout.damaged(f"the split {layout.split} has labels outside 0 … {_CLASSES - 1}")
    return labels


def _feature(item: Item[int], name: str) -> Any:
    """One of the features "image", "label", "file_name" of an image."""
    try:
        (value,) = example.decode(_records(item.path)[item.extra], (name,))[name]
    except (tfrecord.RecordError, IndexError) as error:
        raise decode.DecodeError(str(error)) from error
    except (KeyError, ValueError) as error:
        where = f"{item.path}: row {item.extra}"
        raise decode.DecodeError(f"{where} has no feature {name!r} of ImageNet") from error
    return value
