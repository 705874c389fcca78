# SPDX-License-Identifier: Apache-2.0
"""What selecting has to know of every row: measured once, shard by shard, and kept.

A fact lies in `STORE/selections/.facts/NAME-00000.npz`, one file a shard, so that a killed run goes
on and another selection of the same store is made without reading the images again. It is measured
anew where the records of its shard have changed. The folder is a cache: delete it at will.
"""

import contextlib
import dataclasses
import io
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import example, files, store
from mtv_jax.core.progress import Progress
from tools.data import parallel

MEASURED, UNREADABLE = 1, 2  # of "state"; 0 is not measured yet
_COUNT_EVERY = 64  # rows; spares the lock that workers share

Columns = Mapping[str, example.Column]


@dataclasses.dataclass(frozen=True)
class Fact:
    """One thing to measure of every row.

    Attributes:
        name: of its files.
        describe: a module-level function from the columns of a record to the values of `fields`; a
            ValueError means that the record, or the image in it, cannot be read.
        fields: name and dtype of each value.
        columns: the columns that `describe` reads; None for all.
        holder: the base, or a sidecar.
    """

    name: str
    describe: Callable[[Columns], tuple[Any, ...]]
    fields: tuple[tuple[str, str], ...]
    columns: tuple[str, ...] | None
    holder: str = store.BASE

    @property
    def dtype(self) -> np.dtype:
        """Of one row."""
        return np.dtype([("state", "u1"), *self.fields])


@dataclasses.dataclass(frozen=True)
class _Task:
    """One shard: where it is, what to measure, of which rows (bool [n])."""

    path: pathlib.Path
    shard: int
    facts: tuple[Fact, ...]
    wanted: np.ndarray


def measure(
    opened: store.Store, facts: Sequence[Fact], wanted: np.ndarray, *, label: str, workers: int
) -> None:
    """Measures what is not there yet.

    Args:
        opened: the store.
        facts: what to measure.
        wanted: bool [num_rows], the rows of which to know it.
        label: of the progress line.
        workers: number of processes.
    """
    tasks = []
    for shard, rows in enumerate(_shards_of(opened, wanted)):
        missing = tuple(fact for fact in facts if not _covers(opened, fact, shard, rows))
        if missing:
            tasks.append(_Task(opened.path, shard, missing, rows))
    total, left = int(wanted.sum()), sum(int(task.wanted.sum()) for task in tasks)
    if not tasks:
        return
    progress = Progress(label, total)
    progress.skip(total - left)
    for _ in parallel.map_shards(
        _measure_shard,
        tasks,
        workers=workers,
        on_progress=lambda done: progress.show(total - left + done),
    ):
        pass
    progress.finish(total)


def load(opened: store.Store, fact: Fact) -> dict[str, np.ndarray]:
    """The values of a measured fact: by field an array [num_rows]; zeros where it is not known."""
    columns = {name: np.zeros(opened.num_rows, fact.dtype[name]) for name in fact.dtype.names or ()}
    start = 0
    for shard, rows in enumerate(opened.shard_rows):
        found = _read(opened, fact, shard)
        if found is not None:
            for name, column in columns.items():
                column[start : start + rows] = found[name]
        start += rows
    return columns


def _shards_of(opened: store.Store, values: np.ndarray) -> list[np.ndarray]:
    return np.split(values, np.cumsum(opened.shard_rows)[:-1])


def _covers(opened: store.Store, fact: Fact, shard: int, rows: np.ndarray) -> bool:
    found = _read(opened, fact, shard)
    return not rows.any() or (found is not None and bool(found["state"][rows].all()))


def _measure_shard(task: _Task) -> None:
    opened = store.Store.open(task.path)
    found = {}
    for fact in task.facts:
        known = _read(opened, fact, task.shard)
        fresh = np.zeros(opened.shard_rows[task.shard], fact.dtype)
        found[fact] = fresh if known is None else known
    done = 0
    for row in np.flatnonzero(task.wanted):
        for holder in {fact.holder for fact in task.facts}:
            facts = [
                fact
                for fact in task.facts
                if fact.holder == holder and not found[fact]["state"][row]
            ]
            if facts:
                _describe_row(opened, store.Location(task.shard, int(row)), facts, found)
        done += 1
        if done % _COUNT_EVERY == 0:
            parallel.count_done(_COUNT_EVERY)
    parallel.count_done(done % _COUNT_EVERY)
    for fact, values in found.items():
        _write(opened, fact, task.shard, values)


def _describe_row(
    opened: store.Store,
    at: store.Location,
    facts: Sequence[Fact],
    found: Mapping[Fact, np.ndarray],
) -> None:
    """Fills in facts of one holder, which is read once."""
    names = {name for fact in facts for name in fact.columns or ()}
    whole = any(fact.columns is None for fact in facts)
    columns: Columns | None = None
    with contextlib.suppress(ValueError):  # of the bytes that were written
        payload = opened.records(facts[0].holder, at.shard)[at.row]
        columns = example.decode(payload, None if whole else names)
    for fact in facts:
        found[fact]["state"][at.row] = UNREADABLE
        if columns is not None:
            with contextlib.suppress(ValueError):
                found[fact][at.row] = (MEASURED, *fact.describe(columns))


def _path(opened: store.Store, fact: Fact, shard: int) -> pathlib.Path:
    return opened.path / "selections" / ".facts" / f"{fact.name}-{shard:05d}.npz"


def _stamp(opened: store.Store, fact: Fact, shard: int) -> np.ndarray:
    """Tells one set of records from another by where each starts; survives a copied store."""
    offsets = np.ascontiguousarray(opened.records(fact.holder, shard).offsets)
    return np.array([len(offsets), offsets[-1], zlib.crc32(offsets.tobytes())], np.uint64)


def _read(opened: store.Store, fact: Fact, shard: int) -> np.ndarray | None:
    """What an earlier run measured of a shard, or None."""
    try:
        with np.load(_path(opened, fact, shard)) as archive:
            stamp, values = archive["stamp"], archive["values"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    same = np.array_equal(stamp, _stamp(opened, fact, shard)) and values.dtype == fact.dtype
    return values if same and len(values) == opened.shard_rows[shard] else None


def _write(opened: store.Store, fact: Fact, shard: int, values: np.ndarray) -> None:
    path = _path(opened, fact, shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, stamp=_stamp(opened, fact, shard), values=values)
    files.write_atomically(path, buffer.getvalue())
