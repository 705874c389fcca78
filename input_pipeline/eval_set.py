# SPDX-License-Identifier: Apache-2.0
"""Rows of a store as evaluators read them: in store order, straight from the files."""

import dataclasses
import functools
import logging
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8, UInt16

from input_pipeline import decode
from input_pipeline.eval_data import IGNORED, EvalData
from input_pipeline.store import Store
from input_pipeline.tfrecord import RecordError
from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError, closest

_SEGMENTS = "segmentation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalSet(EvalData):
    """Some rows of a store; equal sets share their features.

    Attributes:
        store: path of the store.
        selection: name of a selection file; "" for all rows.
        sidecars: labels to open beside the base shards.
        skip: rows left out, the first ones.
        limit: rows used, the next ones; 0 for all.
    """

    store: str
    selection: str = ""
    sidecars: tuple[str, ...] = ()
    skip: int = at_least(0, 0)
    limit: int = at_least(0, 0)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the store's manifest says about its origin."""
        return self._opened[0].provenance

    def __len__(self) -> int:
        return len(self._opened[1])

    def open(self) -> None:
        """Raises a `UserError`: no such store, sidecar or selection, or one without rows."""
        if not len(self):
            raise UserError(f"the evaluation store {self} has no rows")

    def __str__(self) -> str:
        return f"{self.store}[{self.selection}]" if self.selection else self.store

    def require(self, name: str) -> None:
        """Raises a `UserError` when the store lacks a column."""
        columns = self._opened[0].fields
        if name not in columns:
            hint = closest(name, columns)
            raise UserError(f"the evaluation store {self} has no column {name!r}{hint}")

    def column(self, name: str) -> list[Any]:
        """One column, as `Store.read` gives it; None where a row lacks it or is damaged.

        Raises:
            UserError: the store lacks the column.
        """
        self.require(name)
        store, rows = self._opened
        return [_read(store, row, name) for row in rows]

    def labels(self) -> Int64[np.ndarray, " b"]:
        """The true classes, the column `class_id`.

        Raises:
            UserError: the store lacks the column, or a row does.
        """
        values = self.column("class_id")
        if missing := sum(value is None for value in values):
            raise UserError(f"{missing} images of the store {self} have no class_id")
        return np.asarray([value[0] for value in values], np.int64)

    def class_names(self) -> list[str]:
        """Names of the classes, in label order.

        Raises:
            UserError: the store's manifest names none.
        """
        classes = self.provenance.get("classes")
        if not classes:
            raise UserError(
                f"the store {self.store} names no classes in its manifest (provenance.classes); "
                "classification needs a labelled store"
            )
        return [c["name"] if isinstance(c, dict) else c for c in classes]

    def segment_names(self) -> list[str]:
        """What is no object, then the classes; the column is `segmentation`.

        Raises:
            UserError: the store lacks the column, or names no classes.
        """
        self.require(_SEGMENTS)
        return ["background", *self.class_names()]

    def segments(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """Classes of pixels; one ignored pixel where there are none, or damaged ones.

        Raises:
            UserError: a number that is none of `segment_names`, or that 8 bits do not hold.
        """
        raster = self._raster(index, _SEGMENTS)
        if raster is None:
            return np.full((1, 1), IGNORED, np.uint8)
        highest, last = int(raster.max()), min(len(self.segment_names()), IGNORED) - 1
        if highest > last:
            raise UserError(f"segments {index} of {self} name class {highest}, the last is {last}")
        return raster.astype(np.uint8)

    def captions(self) -> list[tuple[str, ...]]:
        """One caption an image, or none.

        Raises:
            UserError: the store lacks the column `caption`.
        """
        return [(value[0].decode(),) if value else () for value in self.column("caption")]

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The stored image of the set's row number `index`; black, and logged, if damaged."""
        store, rows = self._opened
        try:
            return decode.decode_image(_read(store, rows[index], "image")[0])
        except (decode.DecodeError, TypeError) as error:
            logging.warning("unreadable: image %d of %s: %s", index, self, error)
            return np.zeros((8, 8, 3), np.uint8)

    def raster(self, index: int, name: str) -> UInt16[np.ndarray, "h w"]:
        """A map of the set's row number `index`; one zero where there is none, or a damaged one."""
        raster = self._raster(index, name)
        return np.zeros((1, 1), np.uint16) if raster is None else raster

    def _raster(self, index: int, name: str) -> UInt16[np.ndarray, "h w"] | None:
        store, rows = self._opened
        values = _read(store, rows[index], name)
        try:
            return decode.decode_png16(values[0]) if values else None
        except decode.DecodeError as error:
            logging.warning("unreadable: %s %d of %s: %s", name, index, self, error)
            return None

    @property
    def _opened(self) -> tuple[Store, np.ndarray]:
        return _open(self)


@functools.lru_cache(maxsize=16)
def _open(data: EvalSet) -> tuple[Store, np.ndarray]:
    """The store and the global row numbers of a set."""
    store = Store.open(data.store, data.sidecars)
    rows = store.selection(data.selection) if data.selection else np.arange(store.num_rows)
    return store, rows[data.skip :][: data.limit or None]


def _read(store: Store, row: Any, name: str) -> Any:
    at = store.locate(int(row))
    try:
        return store.read(at.shard, at.row, [name]).get(name)
    except RecordError as error:
        logging.warning("unreadable: row %d of %s: %s", row, store.path, error)
        return None
