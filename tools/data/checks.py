# SPDX-License-Identifier: Apache-2.0
"""What a column of a record must be, by its `Field`: type, length, range, geometry."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from input_pipeline import decode
from input_pipeline.example import Column
from mtv_jax.core.fields import Field
from tools.data.captions import clean_caption


def record_faults(fields: Sequence[Field], columns: Mapping[str, Column]) -> list[str]:
    """Faults of one record of one holder.

    Args:
        fields: the columns that the holder declares.
        columns: what the record holds, without its key.
    """
    declared = {field.name: field for field in fields}
    faults = [f"{name} is not in the manifest" for name in columns if name not in declared]
    present = {declared[name]: values for name, values in columns.items() if name in declared}
    faults += [
        f"{field.name} {fault}"
        for field, values in present.items()
        if (fault := column_fault(field, values))
    ]
    return faults or _length_faults(present)


def label_faults(fields: Sequence[Field], columns: Mapping[str, Column]) -> dict[str, str]:
    """Faults of the labels in one record whose columns keep their contract, by kind."""
    faults: dict[str, str] = {}
    for field in fields:
        values = columns.get(field.name, ())
        if not field.pad_to or field.encode == "tokens" or len(values) == 0:
            continue
        number = len(values) // _inner_size(field)
        if number > field.pad_to:
            faults["more labels than are read"] = f"{field.name} has {number}, want {field.pad_to}"
        if "score" in field.name and isinstance(values, np.ndarray):
            if not ((values > 0) & (values <= 1)).all():
                fault = f"{field.name} is from {values.min():g} to {values.max():g}"
                faults["scores outside (0, 1]"] = fault
            if (np.diff(values) > 0).any():
                faults["scores not in falling order"] = f"{field.name} is not best first"
    return faults


def column_fault(field: Field, values: Column) -> str:
    """What is wrong with one column; "" if nothing."""
    if len(values) == 0:
        return "" if field.pad_to else "is empty"
    if isinstance(values, list):
        return _bytes_fault(field, values)
    if field.dtype == "str" or field.codec:
        return "holds numbers, not bytes"
    return _number_fault(field, values) or _geometry_fault(field, values)


def size_fault(size: Sequence[int], wanted: Sequence[int], *, exact: bool) -> str:
    """Whether a raster of `size` (height, width) lies over an image of `wanted` size."""
    (height, width), (image_height, image_width) = size, wanted
    if exact:
        fits = tuple(size) == tuple(wanted)
    else:  # the same aspect to within a pixel of rounding
        fits = abs(height * image_width - width * image_height) <= max(image_height, image_width)
    return "" if fits else f"is {height}x{width}, the record says {image_height}x{image_width}"


def _bytes_fault(field: Field, values: list[bytes]) -> str:
    if field.codec:
        return "" if len(values) == 1 else "is not one image"
    if field.dtype != "str":
        return "holds bytes, not numbers"
    if field.pad_to is None and len(values) != 1:
        return "is not one text"
    for value in values:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return "is not UTF-8"
        if not text or clean_caption(text).text != text:
            return "is not clean text"
    return ""


def _inner_size(field: Field) -> int:
    """Numbers in one entry of a ragged column."""
    return math.prod(int(axis) for axis in field.shape.split() if axis.isdigit())


def _number_fault(field: Field, values: np.ndarray) -> str:
    inner = _inner_size(field)
    if not field.shape and len(values) != 1:
        return f"is {len(values)} numbers, not one"
    if len(values) % inner:
        return f"has length {len(values)}, not a multiple of {inner}"
    if field.dtype == "float32":
        if values.dtype != np.float32:
            return "holds integers, not floats"
        return "" if np.isfinite(values).all() else "is not finite"
    limits = np.iinfo(field.dtype)
    if values.dtype != np.int64:
        return "holds floats, not integers"
    return "" if limits.min <= values.min() <= values.max() <= limits.max else "overflows its type"


def _geometry_fault(field: Field, values: np.ndarray) -> str:
    if field.geometry not in ("boxes", "points"):
        return ""
    if values.min() < 0 or values.max() > 1:
        return "leaves [0, 1]"
    if field.geometry == "boxes":
        left, top, right, bottom = values.reshape(-1, 4).T
        if not ((left < right) & (top < bottom)).all():
            return "has an empty box"
    return ""


def _length_faults(present: Mapping[Field, Column]) -> list[str]:
    """Ragged columns that share their leading axis must be of equal length."""
    lengths: dict[str, dict[str, int]] = {}
    for field, values in present.items():
        axis, *rest = field.shape.split() or [""]
        if field.pad_to and field.encode != "tokens":
            rows = len(values) // math.prod(int(size) for size in rest)
            lengths.setdefault(axis, {})[field.name] = rows
    return [f"lengths differ: {rows}" for rows in lengths.values() if len(set(rows.values())) > 1]


def decode_raster(field: Field, values: Column) -> np.ndarray:
    """The pixels of an encoded column, as the loader will see them; `DecodeError` if none."""
    data = values[0]
    return decode.decode_image(data) if field.codec == "image" else decode.decode_png16(data)
