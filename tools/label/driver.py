# SPDX-License-Identifier: Apache-2.0
"""Runs an expert over a store: one shard in, one shard of a sidecar out.

A shard is read back and its keys are compared with the base when it is written; with its funnel it
then waits in `STORE/.SIDECAR/shards` until all are there and become the sidecar. What a shard holds
depends on the base shard, the expert's settings and its weights alone: a killed run goes on where
it was, and any engine may label any shard.
"""

import collections
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import decode, example, files, manifests, store, tfrecord
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import IMAGE
from tools.data import parallel, sidecars
from tools.data.depth_values import Rejected
from tools.label import funnel
from tools.label.base import Expert, Labeller, Outcome, Sample, digest_of
from tools.label.funnel import Funnel

_JOB = "job.json"
_COMPLETE = "complete"  # a file that says so
_UNREADABLE = "the image cannot be read"
_IN_FLIGHT = 2  # batches
_MOST_WAITING = 256  # rows whose batches are not full; at 4 MB each
_BLACK = np.zeros((1, 1, 3), np.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One expert over one store.

    Attributes:
        path: the store.
        expert: what labels it.
        device: of PyTorch, such as "cuda" or "cpu".
        threads: that read, prepare and finish; 0 for one a core of the machine that labels.
        selection: name of the rows that are labelled; "" for all.
    """

    path: pathlib.Path
    expert: Expert
    device: str = "cpu"
    threads: int = 0
    selection: str = ""

    @property
    def folder(self) -> pathlib.Path:
        """Of the work in hand: settings and finished shards."""
        return self.path / f".{self.expert.sidecar}"

    @property
    def shards(self) -> pathlib.Path:
        """Where finished shards wait."""
        return self.folder / "shards"

    @functools.cached_property
    def sources(self) -> dict[str, str]:
        """By column that the expert reads, what holds it: the base or the newest sidecar.

        Raises:
            UserError: a column that nothing holds.
        """
        base = store.Store.open(self.path)
        holders = base.sidecar_columns() | {name: [store.BASE] for name in base.fields}
        wanted = self.expert.reads(holders)
        for column in wanted:
            if column not in holders:
                raise UserError(
                    f"{self.expert.name} reads the column {column!r}, which {self.path} does not "
                    "have: run an expert that writes it first"
                )
        return {column: holders[column][-1] for column in wanted}

    def rows_of(self, opened: store.Store, shard: int) -> set[int]:
        """Numbers of the shard's rows that are labelled.

        Raises:
            UserError: no such selection.
        """
        count = opened.shard_rows[shard]
        if not self.selection:
            return set(range(count))
        first = sum(opened.shard_rows[:shard])
        rows = opened.selection(self.selection)
        low, high = np.searchsorted(rows, np.asarray([first, first + count], np.uint64))
        return {int(row) - first for row in rows[low:high]}

    def opened(self) -> store.Store:
        """The store with the sidecars that hold what the expert reads; errors as of `sources`."""
        needed = {holder for holder in self.sources.values() if holder != store.BASE}
        return store.Store.open(self.path, tuple(sorted(needed)))


@contextlib.contextmanager
def sole_driver(job: Job) -> Iterator[None]:
    """Holds a sidecar against a second driver; the lock goes with the process.

    Raises:
        UserError: another one is at it.
    """
    path = job.path / f".{job.expert.sidecar}.lock"  # a shared folder wants a file to lock
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is writing {job.expert.sidecar} of {job.path}: wait for it"
            ) from error
        yield
        path.unlink()  # who opened it before finds the sidecar finished


class _Row(NamedTuple):
    """A row that is on its way."""

    number: int
    key: bytes
    prepared: Any


def label_shard(job: Job, labeller: Labeller, shard: int) -> Iterator[int]:
    """Writes one shard and its funnel; nothing if both are there.

    Args:
        job: the expert and the store.
        labeller: the loaded expert.
        shard: number of the base shard.

    Yields:
        How many rows more are done.
    """
    if finished(job, shard) is not None:
        return
    started = time.perf_counter()
    opened = job.opened()
    rows: dict[int, tuple[bytes, Outcome]] = {}
    with ThreadPoolExecutor(job.threads or parallel.available_cores()) as pool:
        for row, outcome in _outcomes(job, labeller, opened, shard, pool):
            rows[row.number] = row.key, outcome
            yield 1
    report, records = Funnel(), []
    for key, outcome in (rows[number] for number in range(opened.shard_rows[shard])):
        report.add(key.decode(errors="replace"), outcome)
        records.append({store.KEY: key, **outcome.labels})
    store.write_shard(job.shards, job.expert.sidecar, shard, records)
    _check_keys(job, shard, [record[store.KEY] for record in records])
    report.seconds = round(time.perf_counter() - started, 3)
    report.write(_funnel_path(job, shard))


def _outcomes(
    job: Job, labeller: Labeller, opened: store.Store, shard: int, pool: ThreadPoolExecutor
) -> Iterator[tuple[_Row, Outcome]]:
    """Every row with its outcome, in the order they are finished."""
    finishing: collections.deque[tuple[_Row, Future[Outcome]]] = collections.deque()
    for batch, results in _inferred(job, labeller, _batches(job, labeller, opened, shard, pool)):
        for row, result in zip(batch, results, strict=True):
            if isinstance(result, Outcome):
                yield row, result
            else:
                finishing.append((row, pool.submit(_finished, labeller, row, result)))
        while len(finishing) > 2 * job.expert.batch_size:
            row, outcome = finishing.popleft()
            yield row, outcome.result()
    for row, outcome in finishing:
        yield row, outcome.result()


def _finished(labeller: Labeller, row: _Row, result: Any) -> Outcome:
    with _naming(row.key):
        return labeller.finish(row.prepared, result)


@contextlib.contextmanager
def _naming(key: bytes) -> Iterator[None]:
    """Adds to an exception the image that it came of."""
    try:
        yield
    except Exception as error:
        error.add_note(f"the image was {key.decode(errors='replace')}")
        raise


def _inferred(
    job: Job, labeller: Labeller, batches: Iterator[list[_Row]]
) -> Iterator[tuple[list[_Row], Sequence[Any]]]:
    """Batches with their results; while the device works on one, the next is copied to it."""
    at_work: collections.deque[tuple[list[_Row], Future[Sequence[Any]]]] = collections.deque()

    def infer(batch: list[_Row]) -> Sequence[Any]:
        try:
            return labeller.infer([row.prepared for row in batch])
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, which may not be here
                raise
            name, size = job.expert.name, job.expert.batch_size
            raise UserError(
                f"{name}: the device has too little memory for batch_size {size}: give "
                f"--config.experts.{name}.batch_size={max(size // 2, 1)}; what is done is kept"
            ) from error

    with ThreadPoolExecutor(_IN_FLIGHT) as device:
        for batch in batches:
            if isinstance(batch[0].prepared, Outcome):
                yield batch, [row.prepared for row in batch]
                continue
            at_work.append((batch, device.submit(infer, batch)))
            if len(at_work) == _IN_FLIGHT:
                batch, results = at_work.popleft()
                yield batch, results.result()
        for batch, results in at_work:
            yield batch, results.result()


def _batches(
    job: Job, labeller: Labeller, opened: store.Store, shard: int, pool: ThreadPoolExecutor
) -> Iterator[list[_Row]]:
    """Rows of one shape in their order: full batches, but what waits too long in powers of two.

    Rows with nothing to infer come alone.
    """
    waiting: dict[Any, list[_Row]] = collections.defaultdict(list)
    for row in _prepared(job, labeller, opened, shard, pool):
        if isinstance(row.prepared, Outcome):
            yield [row]
            continue
        alike = waiting[labeller.shape(row.prepared)]
        alike.append(row)
        if len(alike) == job.expert.batch_size:
            yield waiting.pop(labeller.shape(row.prepared))
        elif sum(map(len, waiting.values())) == _MOST_WAITING:
            yield from _in_powers_of_two(waiting.pop(next(iter(waiting))))
    for alike in waiting.values():
        yield from _in_powers_of_two(alike)


def _in_powers_of_two(rows: list[_Row]) -> Iterator[list[_Row]]:
    while rows:
        size = 2 ** (len(rows).bit_length() - 1)
        yield rows[:size]
        rows = rows[size:]


def _prepared(
    job: Job, labeller: Labeller, opened: store.Store, shard: int, pool: ThreadPoolExecutor
) -> Iterator[_Row]:
    """Every row in order, a few batches ahead of the device."""
    columns, sees = tuple(job.sources), job.expert.sees
    wanted = job.rows_of(opened, shard)

    def prepare(number: int) -> _Row:
        if number not in wanted:
            (key,) = opened.read(shard, number, ())[store.KEY]
            return _Row(number, key, Outcome(reason=funnel.NOT_SELECTED))
        record = opened.read(shard, number, (*([IMAGE.name] if sees else []), *columns))
        (key,) = record[store.KEY]
        try:
            (encoded,) = record.get(IMAGE.name) or [b""]
            sample = Sample(
                key=key.decode(errors="replace"),
                image=decode.decode_image(encoded) if sees else _BLACK,
                columns={name: record[name] for name in columns if name in record},
            )
            with _naming(key):
                return _Row(number, key, labeller.prepare(sample))
        except decode.DecodeError as error:
            return _Row(number, key, Outcome(reason=_UNREADABLE, detail=str(error)))
        except Rejected as rejected:
            return _Row(number, key, Outcome(reason=rejected.reason, detail=rejected.detail))

    ahead: collections.deque[Future[_Row]] = collections.deque()
    for number in range(opened.shard_rows[shard]):
        ahead.append(pool.submit(prepare, number))
        if len(ahead) > 2 * job.expert.batch_size:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def finished(job: Job, shard: int) -> Funnel | None:
    """The funnel of a shard that is there; None while it has to be labelled."""
    if not store.shard_path(job.shards, job.expert.sidecar, shard).is_file():
        return None
    return funnel.read(_funnel_path(job, shard))


def begin(job: Job, digest: str) -> None:
    """Makes the folder of finished shards, or takes up one of the same settings and weights.

    Raises:
        UserError: shards of other settings wait there.
    """
    job.folder.mkdir(exist_ok=True)
    base = digest_of(job.path / manifests.BASE)
    wanted = {**settings(job, digest), "base_sha256": base}
    path = job.folder / _JOB
    if path.is_file():
        begun = json.loads(path.read_text())
        if changes := differences(begun, wanted):
            raise UserError(
                f"{job.folder} has shards of other settings ({changes}): finish them with "
                "those, or remove the folder"
            )
        return
    files.write_atomically(path, (json.dumps(wanted, indent=1) + "\n").encode())


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What labels were made with, and what is asked for in its place; "" where nothing is."""
    there, wanted = ({**made, **(made.get("settings") or {})} for made in (there, wanted))
    changed = [k for k in sorted(wanted) if k != "settings" and there.get(k) != wanted[k]]
    return ", ".join(f"{name} {there.get(name)!r} -> {wanted.get(name)!r}" for name in changed)


def settings(job: Job, digest: str) -> dict[str, Any]:
    """What a sidecar's provenance says of how it was made, JSON-able."""
    values = json.loads(json.dumps(dataclasses.asdict(job.expert)))
    del values["batch_size"]  # changes rounding at most
    for name, value in values.items():
        if isinstance(value, str) and value and pathlib.Path(value).exists():
            values[name] = pathlib.Path(value).name  # not where it lies on this machine
    kind = type(job.expert)
    return {
        "expert": f"{kind.__module__}:{kind.__qualname__}",
        "settings": values,
        "reads": job.sources,
        "selection": _described(job),
        "weights_sha256": digest,
        "licence": job.expert.licence.name,
        "commercial": job.expert.licence.commercial,
    }


def _described(job: Job) -> str:
    """Name and content of the selection, so that another one of its name is told apart."""
    if not job.selection:
        return ""
    rows = store.Store.open(job.path).selection(job.selection)
    digest = hashlib.sha256(np.asarray(rows).tobytes()).hexdigest()[:16]
    return f"{job.selection}, {len(rows):,} rows, {digest}"


def commit(job: Job, digest: str) -> Funnel:
    """Makes finished shards the sidecar."""
    sidecar, base = job.expert.sidecar, store.Store.open(job.path)
    if not complete(job):
        sidecars.clear(job.path, sidecar)
        (job.folder / _COMPLETE).touch()
    sidecars.move_in(job.path, job.shards)
    report = Funnel()
    for shard in range(len(base.shard_rows)):
        part = funnel.read(funnel.path_of(job.path, sidecar, shard))
        assert part is not None, f"the funnel of shard {shard} is lost"
        report.merge(part)
    provenance = {
        "tool": "tools.label",
        **settings(job, digest),
        "labelled": report.labelled,
        "rejected_by_reason": report.rejected.counts,
        "dropped_by_reason": report.dropped,
    }
    store.finish_sidecar(job.path, sidecar, job.expert.emits(), provenance)
    shutil.rmtree(job.folder)
    return report


def complete(job: Job) -> bool:
    """Whether all shards were labelled: some may have been moved already."""
    return (job.folder / _COMPLETE).exists()


def _check_keys(job: Job, shard: int, wanted: Sequence[bytes]) -> None:
    """Reads every record that was written, checksums included."""
    path = store.shard_path(job.shards, job.expert.sidecar, shard)
    try:
        records = tfrecord.RecordFile(path)
        payloads = (records[row] for row in range(len(records)))
        found = [example.decode(payload, (store.KEY,))[store.KEY] for payload in payloads]
    except (tfrecord.RecordError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}): look at the disk, run again") from error
    if found != [[key] for key in wanted]:
        raise UserError(f"{path} has other keys than the base: look at the disk, run again")


def _funnel_path(job: Job, shard: int) -> pathlib.Path:
    return funnel.path_of(job.shards, job.expert.sidecar, shard)
