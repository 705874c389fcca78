# SPDX-License-Identifier: Apache-2.0
"""The file operations of the store: positioned reads, and writes that appear whole or not."""

import contextlib
import fcntl
import os
import pathlib
import weakref
from collections.abc import Iterator

from mtv_jax.core.errors import UserError


class ReadOnlyFile:
    """A file open for positioned reads.

    `pread` moves no shared offset, so threads and forked processes may use one instance. The file
    closes with its last reference: dropping it from a cache cannot cut off a read in progress.
    """

    def __init__(self, path: pathlib.Path):
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def pread(self, length: int, offset: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end of the file."""
        data = os.pread(self._descriptor, length, offset)
        while 0 < len(data) < length:  # Linux returns at most 2 GiB a call, a network mount less
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data


def temporary_path(path: pathlib.Path) -> pathlib.Path:
    """Where this process writes `path` until it is whole."""
    return path.with_name(f"{path.name}.tmp-{os.getpid()}")


def remove_leftovers(path: pathlib.Path) -> None:
    """Removes what killed writers of `path` left behind."""
    for leftover in path.parent.glob(f"{path.name}.tmp-*"):
        leftover.unlink(missing_ok=True)


def sync_directory(directory: pathlib.Path) -> None:
    """Makes the renames in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def sole_writer(directory: pathlib.Path, part: str = "") -> Iterator[int]:
    """Holds a folder, made when absent, or one part of it, against a second writer.

    Yields the descriptor of the lock, which goes with the last process that has it: a child that is
    to hold it too gets it passed on. The file that is locked stays.

    Raises:
        UserError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # A file that is open for writing: NFS locks nothing else.
    lock = directory / (f".{part}.lock" if part else ".lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        held = f"{part} of {directory}" if part else directory
        raise UserError(f"another process is writing {held}: wait for it, or end it") from error
    else:
        yield descriptor
    finally:
        os.close(descriptor)


def write_atomically(path: pathlib.Path, data: bytes) -> None:
    """Replaces `path` by `data`; a reader sees the old content or the new, never a part.

    Raises:
        OSError: the old content is still there; `filename` is `path`, also where a disk is full.
    """
    temporary = temporary_path(path)
    try:
        remove_leftovers(path)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise
    sync_directory(path.parent)
