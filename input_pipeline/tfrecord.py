# SPDX-License-Identifier: Apache-2.0
"""TFRecord files with random access.

The framing is the standard one, so any TFRecord reader opens these files: per record a
little-endian uint64 length, the masked CRC32C of the length, the payload, the masked CRC32C of the
payload. Beside `x.tfrecord` lies `x.tfrecord.index`, an `.npy` array of n + 1 uint64 byte offsets
(every record start, then the end of the file). It is only a cache: lost or stale, it is rebuilt.
"""

import contextlib
import io
import os
import pathlib
import struct

import google_crc32c
import numpy as np

from input_pipeline import files
from mtv_jax.core.errors import UserError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_OVERHEAD = _HEADER.size + _FOOTER.size


class RecordError(UserError):
    """A record that cannot be trusted; the message names file, row and byte offset."""


def masked_crc(data: bytes) -> int:
    """CRC32C of `data`, masked as TFRecord wants it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def index_path(path: pathlib.Path) -> pathlib.Path:
    """Where the offsets of the TFRecord file `path` lie."""
    return path.with_name(path.name + ".index")


class RecordWriter:
    """Writes one TFRecord file and its index; both appear when the `with` block ends well.

    After an exception or a kill only `*.tmp-<pid>` files remain, which the next writer of the same
    path removes.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._path = pathlib.Path(path)
        self._offsets = [0]

    def __enter__(self) -> "RecordWriter":
        files.remove_leftovers(self._path)
        files.remove_leftovers(index_path(self._path))
        self._file = open(files.temporary_path(self._path), "wb")
        return self

    def write(self, payload: bytes) -> None:
        """Appends one record."""
        length = struct.pack("<Q", len(payload))
        self._file.write(length + _FOOTER.pack(masked_crc(length)))
        self._file.write(payload)
        self._file.write(_FOOTER.pack(masked_crc(payload)))
        self._offsets.append(self._offsets[-1] + _OVERHEAD + len(payload))

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        temporary = files.temporary_path(self._path)
        try:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())
        except OSError:
            temporary.unlink()
            raise
        if exception_type is not None:
            temporary.unlink()
            return
        # The old records go first: a kill from here on leaves no file, or the new one with its
        # index, but never the new index beside the old records.
        self._path.unlink(missing_ok=True)
        _write_index(self._path, np.array(self._offsets, np.uint64))
        os.replace(temporary, self._path)
        files.sync_directory(self._path.parent)


class RecordFile:
    """The records of one TFRecord file as a sequence of bytes.

    Opens on first use, so it may be pickled, forked and spawned freely. Reading a record costs one
    `pread` and checks both checksums.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        self._file: files.ReadOnlyFile | None = None
        self._offsets: np.ndarray | None = None

    def __reduce__(self) -> tuple[type, tuple[pathlib.Path]]:
        return RecordFile, (self.path,)

    def __len__(self) -> int:
        return len(self._opened()) - 1

    def __getitem__(self, row: int) -> bytes:
        """Payload of record `row`.

        Raises:
            IndexError: `row` is outside [0, len).
            RecordError: the bytes on disk are not what was written.
        """
        offsets = self._opened()
        if not 0 <= row < len(offsets) - 1:
            raise IndexError(f"{self.path}: no row {row}, it has {len(offsets) - 1}")
        start, end = int(offsets[row]), int(offsets[row + 1])
        inside = start + _OVERHEAD <= end <= self._file.size
        record = self._file.pread(end - start, start) if inside else b""
        if fault := _fault(record, end - start):
            raise RecordError(f"{self.path}: row {row} at byte {start}: {fault}")
        return record[_HEADER.size : -_FOOTER.size]

    @property
    def offsets(self) -> np.ndarray:
        """uint64 [n + 1]: where every record starts, then where the last one ends."""
        return self._opened()

    def _opened(self) -> np.ndarray:
        if self._offsets is None:
            file = files.ReadOnlyFile(self.path)
            offsets = _read_index(self.path)
            if offsets is None or offsets[-1] != file.size:
                offsets = self._rebuilt(offsets, file.size)
            self._file, self._offsets = file, offsets
        return self._offsets

    def _rebuilt(self, stale: np.ndarray | None, size: int) -> np.ndarray:
        """Offsets by a scan; of a file that is cut short the old ones, for the rows before."""
        try:
            offsets = scan(self.path)
        except RecordError:
            if stale is None or stale[-1] < size:
                raise
            return stale
        with contextlib.suppress(OSError):  # read-only, or another process just did it
            _write_index(self.path, offsets)
        return offsets


def scan(path: pathlib.Path) -> np.ndarray:
    """The offsets of a TFRecord file by walking its headers, index or no index.

    Raises:
        RecordError: a header that is damaged or a last record that is cut short.
    """
    file = files.ReadOnlyFile(path)
    offsets = [0]
    while offsets[-1] < file.size:
        start = offsets[-1]
        header = file.pread(_HEADER.size, start)
        where = f"{path}: row {len(offsets) - 1} at byte {start}"
        if len(header) < _HEADER.size:
            raise RecordError(f"{where}: cut short")
        length, crc = _HEADER.unpack(header)
        if crc != masked_crc(header[:8]):
            raise RecordError(f"{where}: header checksum does not match")
        if start + length + _OVERHEAD > file.size:
            raise RecordError(f"{where}: cut short")
        offsets.append(start + length + _OVERHEAD)
    return np.array(offsets, np.uint64)


def _fault(record: bytes, length: int) -> str:
    """What is wrong with the framing of `record`, which should be `length` bytes; "" if nothing."""
    if len(record) != length or not record:
        return "cut short, or its .index is not of this file: delete the .index and try again"
    payload_length, header_crc = _HEADER.unpack_from(record)
    if header_crc != masked_crc(record[:8]):
        return "header checksum does not match"
    if payload_length != length - _OVERHEAD:
        return f"length {payload_length} does not match the index"
    if _FOOTER.unpack_from(record, length - _FOOTER.size)[0] != masked_crc(
        record[_HEADER.size : -_FOOTER.size]
    ):
        return "payload checksum does not match"
    return ""


def _write_index(path: pathlib.Path, offsets: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, offsets)
    files.write_atomically(index_path(path), buffer.getvalue())


def _read_index(path: pathlib.Path) -> np.ndarray | None:
    """The memory-mapped offsets beside a file, or None where there are none that could be."""
    try:
        offsets = np.load(index_path(path), mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    whole = offsets.dtype == np.uint64 and offsets.ndim == 1 and len(offsets) > 0
    return offsets if whole and offsets[0] == 0 else None
