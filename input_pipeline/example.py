# SPDX-License-Identifier: Apache-2.0
"""`tf.train.Example` to and from bytes, without TensorFlow or protobuf.

The message is a map from names to one of three lists (wire format of protocol buffers):
Example.features = 1, Features.feature = 1 (map entry: key = 1, value = 2), Feature.bytes_list = 1,
float_list = 2, int64_list = 3, and `value` = 1 in each list. Numbers are written packed and read
packed or not. Signed integers are two's complement, so a negative one takes ten bytes.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

Value = bytes | str | int | float | Sequence | np.ndarray
Column = list[bytes] | np.ndarray

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_ENTRY = 1 << 3 | _BYTES  # field 1 of Example, Features, the map entry (its key), and bytes lists
_MAP_VALUE = 2 << 3 | _BYTES
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3


def encode(features: Mapping[str, Value]) -> bytes:
    """Serialises `features`, in sorted order of names, so equal features give equal bytes.

    Args:
        features: by name a scalar or a sequence of bytes, text, integers (bool included) or floats
            (kept as float32). Arrays are flattened in C order.

    Raises:
        TypeError: a value of another or of mixed type.
        OverflowError: an integer outside int64.
    """
    entries = bytearray()
    for name in sorted(features):
        feature = _encode_feature(name, features[name])
        entry = _delimited(1, name.encode()) + _delimited(2, feature)
        entries += _delimited(1, entry)
    return _delimited(1, bytes(entries))


def decode(payload: bytes, keys: Collection[str] | None = None) -> dict[str, Column]:
    """Parses an Example.

    Args:
        payload: the serialised message.
        keys: the names to return; None is all. The others are skipped without being parsed.

    Returns:
        By name a list of bytes, an int64 array [n] or a float32 array [n].

    Raises:
        ValueError: `payload` is not an Example.
    """
    wanted = None if keys is None else {key.encode() for key in keys}
    columns: dict[str, Column] = {}
    for features in _submessages(memoryview(payload), _ENTRY):
        for entry in _submessages(features, _ENTRY):
            parts = dict(_fields(entry))
            name = bytes(parts.get(_ENTRY, b""))
            if wanted is None or name in wanted:
                columns[name.decode()] = _decode_feature(parts.get(_MAP_VALUE, memoryview(b"")))
    return columns


def _encode_feature(name: str, value: Value) -> bytes:
    values = value.ravel() if isinstance(value, np.ndarray) else value
    if isinstance(values, bytes | str | int | float | np.number | np.bool_):
        values = [values]
    if isinstance(values, Sequence) and not values:
        return b""  # a Feature of no kind
    if isinstance(values, Sequence) and all(isinstance(item, bytes | str) for item in values):
        items = (item.encode() if isinstance(item, str) else item for item in values)
        return _delimited(_BYTES_LIST, b"".join(_delimited(1, item) for item in items))
    numbers = np.asarray(values)
    if numbers.ndim == 1 and numbers.dtype.kind == "f":
        return _delimited(_FLOAT_LIST, _delimited(1, numbers.astype("<f4").tobytes()))
    if numbers.ndim == 1 and (
        numbers.dtype.kind in "iub" or all(isinstance(number, int) for number in numbers)
    ):
        packed = b"".join(_varint(_to_uint64(int(number))) for number in numbers)
        return _delimited(_INT64_LIST, _delimited(1, packed))
    raise TypeError(f"feature {name!r}: want bytes, text, integers or floats, got {value!r:.80}")


def _to_uint64(number: int) -> int:
    if not -(1 << 63) <= number < 1 << 63:
        raise OverflowError(f"{number} does not fit int64")
    return number & 0xFFFFFFFFFFFFFFFF


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _delimited(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(data)) + data


def _decode_feature(feature: memoryview) -> Column:
    column: Column = []
    for tag, values in _fields(feature):
        if tag == _BYTES_LIST << 3 | _BYTES:
            column = [bytes(item) for item in _submessages(values, _ENTRY)]
        elif tag == _FLOAT_LIST << 3 | _BYTES:
            raw = b"".join(bytes(part) for _, part in _fields(values))
            column = np.frombuffer(raw, "<f4").astype(np.float32, copy=False)
        elif tag == _INT64_LIST << 3 | _BYTES:
            column = np.array(list(_integers(values)), np.uint64).view(np.int64)
    return column


def _integers(values: memoryview) -> Iterator[int]:
    for tag, part in _fields(values):
        if tag & 7 == _VARINT:
            yield part
            continue
        position = 0
        while position < len(part):
            number, position = _read_varint(part, position)
            yield number


def _submessages(message: memoryview, tag: int) -> Iterator[memoryview]:
    return (part for found, part in _fields(message) if found == tag)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """(tag, content) of every field: an integer for varints, else the bytes."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        wire_type = tag & 7
        if wire_type == _VARINT:
            content, position = _read_varint(message, position)
            yield tag, content
            continue
        if wire_type == _BYTES:
            size, position = _read_varint(message, position)
        elif wire_type in (_FIXED32, _FIXED64):
            size = 4 if wire_type == _FIXED32 else 8
        else:
            raise ValueError(f"not an Example: wire type {wire_type}")
        if position + size > len(message):
            raise ValueError("not an Example: cut short")
        yield tag, message[position : position + size]
        position += size


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """(number, position after it)."""
    number = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("not an Example: cut short")
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, position
    raise ValueError("not an Example: an integer of more than ten bytes")
