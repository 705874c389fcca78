# SPDX-License-Identifier: Apache-2.0
"""What readers of distributed data sets share: finding files, and saying which are missing."""

import abc
import dataclasses
import functools
import json
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from jaxtyping import UInt8

from input_pipeline import decode
from input_pipeline.eval_data import EvalData
from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError

Extra = TypeVar("Extra")


@dataclasses.dataclass(frozen=True)
class Item(Generic[Extra]):
    """An image, and what goes with it.

    Attributes:
        path: the file that holds the image.
        extra: a label, captions, the file of a map; or the row, where a file holds many images.
    """

    path: pathlib.Path
    extra: Extra

    def paths(self) -> tuple[pathlib.Path, ...]:
        """Files that have to be there."""
        return tuple(part for part in (self.path, self.extra) if isinstance(part, pathlib.Path))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout(EvalData):
    """A data set as its distributor ships it, read where it lies.

    Attributes:
        root: the folder of the data set.
        limit: images used, the first ones; 0 for all.
    """

    root: str
    limit: int = at_least(0, 0)

    @property
    @abc.abstractmethod
    def source(self) -> str:
        """Where to get it."""

    @abc.abstractmethod
    def find(self) -> Sequence[Any]:
        """Looks up every image: `Item`s, or other records with a `path` and `paths()`.

        Raises:
            UserError: the layout is not that of the distributor.
        """

    @property
    def items(self) -> Sequence[Any]:
        """The records, in the set's order; looked up once."""
        return _found(self)

    def open(self) -> None:
        """Raises a `UserError` when the set is not there, or a file of it is not."""
        if missing := self.missing():
            raise self.damaged(
                f"{len(missing)} of its files are missing, the first is {missing[0]}"
            )

    def missing(self) -> list[pathlib.Path]:
        """Files that records name and that are not there."""
        named = dict.fromkeys(path for item in self.items for path in item.paths())
        return [path for path in named if not path.is_file()]

    def faults(self) -> Iterator[str]:
        """What only decoding every map shows: a line for each one that is damaged."""
        return iter(())

    def __len__(self) -> int:
        return len(self.items)

    def __str__(self) -> str:
        return f"{type(self).__name__} in {self.root}"

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image; EXIF orientation is not applied, as in the published protocols."""
        item = self.items[index]
        try:
            return self.pixels(item)
        except (OSError, decode.DecodeError) as error:
            logging.warning("unreadable: image %d of %s, %s: %s", index, self, item.path, error)
            return np.zeros((8, 8, 3), np.uint8)

    def pixels(self, item: Any) -> UInt8[np.ndarray, "h w 3"]:
        """The image of a record; OSError or `DecodeError` if it cannot be read."""
        return decode.decode_image(item.path.read_bytes())

    def damaged(self, what: str) -> UserError:
        """The error that says what is wrong with the data set, and where to get it."""
        return UserError(f"{self}: {what}; get it from {self.source}")

    def folder(self, name: str) -> pathlib.Path:
        """A folder below the root, which has to be there."""
        path = pathlib.Path(self.root, name)
        if not path.is_dir():
            raise self.damaged(f"the folder {name or self.root} is missing")
        return path

    def text(self, name: str) -> str:
        """A text file below the root, which has to be there."""
        try:
            return pathlib.Path(self.root, name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise self.damaged(f"the file {name} cannot be read ({reason})") from error

    def json(self, name: str) -> Any:
        """A JSON file below the root, which has to be there."""
        try:
            return json.loads(self.text(name))
        except ValueError as error:
            raise self.damaged(f"the file {name} is no JSON ({error})") from error


@functools.lru_cache(maxsize=64)
def _found(layout: Layout) -> Sequence[Any]:
    items = layout.find()[: layout.limit or None]
    if not items:
        raise layout.damaged("it holds no images")
    return items


def read_raster(path: pathlib.Path) -> np.ndarray:
    """A one-channel PNG as it is stored, uint8 or uint16 [h, w].

    Raises:
        DecodeError: it cannot be read, or has another form; the message names the file.
    """
    try:
        data = path.read_bytes()
        decode.check_size(*decode.open_header(data).size)
    except OSError as error:
        raise decode.DecodeError(f"cannot read {path}: {error.strerror}") from error
    except decode.DecodeError as error:
        raise decode.DecodeError(f"{path}: {error}") from error
    raster = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if raster is None:
        raise decode.DecodeError(f"{path} is damaged or cut short")
    if raster.ndim != 2:
        raise decode.DecodeError(f"{path} is not an image of one channel")
    return raster
