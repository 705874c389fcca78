# SPDX-License-Identifier: Apache-2.0
"""From a stream position to one sample of static shape.

The host reads, decodes once onto a fixed canvas, tokenises. A column that is missing, or a record
that cannot be read, becomes zeros (UNKNOWN where phrases belong) with `valid` False: shapes and
order never change.
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from input_pipeline import decode
from input_pipeline.order import EpochOrder, Mixture, mix64
from input_pipeline.store import Store
from input_pipeline.tfrecord import RecordError
from input_pipeline.tokenizer import Tokenizer, canonicalize
from input_pipeline.vocabulary import UNKNOWN, Vocabulary
from mtv_jax.core.fields import Field
from mtv_jax.core.position import split_position

_DTYPES = {"uint8": np.uint8, "uint16": np.uint16, "int32": np.int32, "float32": np.float32}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """One store of a mixture: its rows in training order.

    Attributes:
        store: the opened store.
        weight: share of the mixture.
        selection: the rows in use; "" for all.
        block: rows that travel together (1 on local disk).
        window: blocks shuffled among each other.
    """

    store: Store
    weight: float = 1.0
    selection: str = ""
    block: int = 1
    window: int = 1

    def __getstate__(self) -> dict[str, Any]:  # without the rows: every process maps them itself
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @functools.cached_property
    def rows(self) -> np.ndarray | range:
        """Global row numbers in use."""
        if self.selection:
            return self.store.selection(self.selection)
        return range(self.store.num_rows)


class SampleSource:
    """Samples by stream position: the random-access source of the loader.

    Args:
        streams: the mixture.
        fields: columns that objectives read; one that a store lacks is invalid there.
        canvas: side of the square raster canvas in pixels.
        tokenizer: for columns encoded as tokens.
        vocabularies: by column, for those encoded as one.
        seed: of the order.
    """

    def __init__(
        self,
        streams: tuple[Stream, ...],
        fields: tuple[Field, ...],
        canvas: int,
        tokenizer: Tokenizer | None,
        vocabularies: Mapping[str, Vocabulary],
        seed: int,
    ):
        self.streams, self.fields = streams, fields
        self.canvas, self.tokenizer, self.vocabularies = canvas, tokenizer, vocabularies
        self._mixture = Mixture.from_weights([s.weight for s in streams])
        self._orders = [
            EpochOrder(
                rows=len(s.rows), seed=mix64(seed ^ mix64(i)), block=s.block, window=s.window
            )
            for i, s in enumerate(streams)
        ]
        cv2.setNumThreads(0)  # parallelism is by worker process

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The sample at a stream position, as numpy arrays of static shape."""
        index, draw = self._mixture.locate(position)
        stream = self.streams[index]
        row = stream.rows[self._orders[index].row(draw)]
        at = stream.store.locate(int(row))
        columns, size = self._read(stream.store, at.shard, at.row)
        valid = {f.name: np.bool_(f.name in columns) for f in self.fields}
        return {
            "position": split_position(position),
            "record_id": np.asarray([index, at.shard, at.row], np.int32),
            "image_size": np.asarray(size, np.int32),
            "valid": valid,
            **{f.name: columns.get(f.name, self._blank(f)) for f in self.fields},
        }

    def _read(
        self, store: Store, shard: int, row: int
    ) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
        """Decoded columns and the stored image's (height, width); nothing of a broken record."""
        wanted = [f for f in self.fields if f.name in store.fields]
        where = f"store {store.name} shard {shard} row {row}"
        try:
            raw = store.read(shard, row, [*(f.name for f in wanted), "height", "width"])
            size = (int(raw["height"][0]), int(raw["width"][0]))
        except (RecordError, LookupError) as error:
            logging.warning("unreadable: %s: %s", where, error)
            return {}, (1, 1)
        columns: dict[str, np.ndarray] = {}
        for field in wanted:
            try:
                value = self._decode(field, raw[field.name]) if field.name in raw else None
            except (decode.DecodeError, ValueError) as error:  # UnicodeDecodeError is one
                logging.warning("unreadable: %s column %s: %s", where, field.name, error)
                continue
            if value is not None:
                columns[field.name] = value
        return columns, size

    def _decode(self, field: Field, values: Any) -> np.ndarray | None:
        """One column as its static array; None when the record holds it empty."""
        if len(values) == 0:
            return None
        if field.codec == "image":
            image = decode.decode_image(values[0], min_side=self.canvas)
            return decode.to_canvas(image, self.canvas)
        if field.codec == "png16":
            raster = decode.decode_png16(values[0])
            interpolation = cv2.INTER_NEAREST if field.resample == "nearest" else cv2.INTER_AREA
            return cv2.resize(raster, (self.canvas, self.canvas), interpolation=interpolation)
        if field.encode == "tokens":
            text = values[0].decode()
            assert self.tokenizer is not None
            return self.tokenizer.encode(text) if canonicalize(text) else None
        if field.encode == "vocabulary":
            phrases = self.vocabularies[field.name]
            values = [phrases.encode(value.decode()) for value in values]
        array = np.asarray(values, column_dtype(field))
        if field.pad_to is None:
            return array.reshape(self._shape(field))
        blank = self._blank(field)
        rows = array.reshape(-1, *blank.shape[1:])[: field.pad_to]
        blank[: len(rows)] = rows
        return blank

    def _shape(self, field: Field) -> tuple[int, ...]:
        length = self.tokenizer.length if self.tokenizer else 0
        return column_shape(field, canvas=self.canvas, text_length=length)

    def _blank(self, field: Field) -> np.ndarray:
        nothing = UNKNOWN if field.encode == "vocabulary" else 0
        return np.full(self._shape(field), nothing, column_dtype(field))


def column_shape(field: Field, *, canvas: int, text_length: int) -> tuple[int, ...]:
    """Static per-sample shape of a column."""
    if field.encode == "tokens":
        return (text_length,)
    sizes = {"h": canvas, "w": canvas}
    names = field.shape.split()
    if field.pad_to is not None:
        return (field.pad_to, *(int(name) for name in names[1:]))
    return tuple(sizes[name] if name in sizes else int(name) for name in names)


def column_dtype(field: Field) -> type[np.generic]:
    """Element type of a column in the batch; texts are ids, phrases indices."""
    return _DTYPES.get(field.dtype, np.int32)


def sample_shapes(fields: tuple[Field, ...], *, canvas: int, text_length: int) -> dict[str, Any]:
    """(shape, dtype) of everything a sample holds, without reading one."""
    columns = {
        f.name: (column_shape(f, canvas=canvas, text_length=text_length), column_dtype(f))
        for f in fields
    }
    return {
        "position": ((2,), np.uint32),
        "record_id": ((3,), np.int32),
        "image_size": ((2,), np.int32),
        "valid": {f.name: ((), np.bool_) for f in fields},
        **columns,
    }
