# SPDX-License-Identifier: Apache-2.0
"""Runs an expert over a shard: one shard in, one shard of a sidecar out.

It is read back and its keys are compared with the base when it is written. What it holds depends on
the base shard, the expert's settings and its weights alone: a killed run goes on where it was, and
any engine may label any shard.
"""

import collections
import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import decode, example, store, tfrecord
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import IMAGE
from tools.data import parallel
from tools.data.depth_values import Rejected
from tools.label import funnel, jobs
from tools.label.base import Labeller, Outcome, Sample
from tools.label.funnel import Funnel
from tools.label.jobs import Job

_UNREADABLE = "the image cannot be read"
_IN_FLIGHT = 2  # batches
_MOST_WAITING = 256  # rows whose batches are not full; at 4 MB each
_BLACK = np.zeros((1, 1, 3), np.uint8)


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
    if jobs.finished(job, shard) is not None:
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
    report.write(job.funnel_path(shard))


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
