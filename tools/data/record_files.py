# SPDX-License-Identifier: Apache-2.0
"""The records of TFRecord and ArrayRecord files in order, whatever is wrong with them.

`input_pipeline.tfrecord` reads stores, where damage is an error. Here a record that is damaged or
far too large is passed over, and a file that breaks off gives what came before.
"""

import os
import pathlib
import struct
from collections.abc import Callable, Iterator

from input_pipeline.tfrecord import masked_crc

_HEADER = struct.Struct("<QI")
_CRC_BYTES = 4
_AT_ONCE = 16  # array records that are read in one go


class BrokenFile(Exception):
    """Raised after the last record that could be read; the message says where the file breaks."""


class Unreadable(str):
    """In place of a record: why it is not there, in one word."""


def tf_records(path: pathlib.Path, limit: int) -> Iterator[bytes | Unreadable]:
    """Every record of a TFRecord file of at most `limit` bytes a record.

    Raises:
        BrokenFile: after the last record before a damaged header or an early end.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while (start := file.tell()) < size:
            header = file.read(_HEADER.size)
            length, crc = _HEADER.unpack(header) if len(header) == _HEADER.size else (size, -1)
            if crc != -1 and crc != masked_crc(header[:8]):
                raise BrokenFile(f"broken at byte {start} of {size} (no header of a TFRecord)")
            if start + _HEADER.size + length + _CRC_BYTES > size:
                raise BrokenFile(f"broken at byte {start} of {size} (cut short)")
            if length > limit:
                file.seek(length + _CRC_BYTES, os.SEEK_CUR)
                yield Unreadable("oversize_member")
                continue
            payload = file.read(length)
            whole = file.read(_CRC_BYTES) == struct.pack("<I", masked_crc(payload))
            yield payload if whole else Unreadable("unreadable")


def array_records(path: pathlib.Path, limit: int) -> Iterator[bytes | Unreadable]:
    """Every record of an ArrayRecord file of at most `limit` bytes a record.

    Raises:
        BrokenFile: at once, where the file cannot be opened. One that is cut short has no index
            and may look as if it were empty.
    """
    from array_record.python.array_record_module import ArrayRecordReader  # half a second

    try:
        reader = ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
        count = reader.num_records()
    except (RuntimeError, ValueError, OSError) as error:
        raise BrokenFile(str(error)) from error
    if not reader.ok():
        raise BrokenFile("its index cannot be read")
    for start in range(0, count, _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, count))
        try:
            records = reader.read(rows.start, rows.stop)
        except (RuntimeError, ValueError, IndexError):
            records = [_one(reader, row) for row in rows]
        for record in records:
            yield record if len(record) <= limit else Unreadable("oversize_member")


def _one(reader, row: int) -> bytes | Unreadable:
    try:
        return reader.read([row])[0]
    except (RuntimeError, ValueError, IndexError):
        return Unreadable("unreadable")


READERS: dict[str, Callable[[pathlib.Path, int], Iterator[bytes | Unreadable]]] = {
    "tfrecord": tf_records,
    "array_record": array_records,
}
