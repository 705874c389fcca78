# SPDX-License-Identifier: Apache-2.0
"""Runs an expert over a store: one shard in, one shard of a sidecar out.

Finished shards wait in `STORE/.SIDECAR/`, each with a file of statistics, until all are there; then
their keys are compared with the base, and they become the sidecar. What a shard holds depends on
the base shard, the expert's settings and its weights alone: a killed run goes on where it was, and
any engine may label any shard.
"""

import collections
import concurrent.futures
import dataclasses
import json
import pathlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import decode, example, files, store, tfrecord
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import IMAGE
from tools.data import sidecars
from tools.data.depth_values import Rejected
from tools.data.verify import Findings
from tools.label.base import Expert, Labeller, Labels, Sample

_JOB = "job.json"
_UNREADABLE = "the image cannot be read"
_BLACK = np.zeros((1, 1, 3), np.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One expert over one store.

    Attributes:
        path: the store.
        expert: what labels it.
        device: of PyTorch, such as "cuda" or "cpu".
        threads: that read and prepare.
    """

    path: pathlib.Path
    expert: Expert
    device: str = "cpu"
    threads: int = 4

    @property
    def folder(self) -> pathlib.Path:
        """Of the work in hand: settings and statistics."""
        return self.path / f".{self.expert.sidecar}"

    @property
    def shards(self) -> pathlib.Path:
        """Where finished shards wait."""
        return self.folder / "shards"

    def opened(self) -> store.Store:
        """The store with the sidecars that hold what the expert reads.

        Raises:
            UserError: a column that nothing holds.
        """
        base = store.Store.open(self.path)
        holders: dict[str, None] = {}
        for column in self.expert.reads():
            if column not in base.fields:
                found = base.sidecars_with(column)
                if not found:
                    raise UserError(
                        f"{self.expert.name} reads the column {column!r}, which {self.path} does "
                        "not have: run an expert that writes it first"
                    )
                holders[found[-1]] = None
        return store.Store.open(self.path, tuple(holders))


@dataclasses.dataclass
class ShardReport:
    """How the rows of a shard fared, as its statistics hold it.

    Attributes:
        rows: of the shard.
        labelled: rows with labels.
        seconds: it took.
        rejected: rows without, by reason, with the first few.
    """

    rows: int = 0
    labelled: int = 0
    seconds: float = 0.0
    rejected: Findings = dataclasses.field(default_factory=Findings)

    def merge(self, other: "ShardReport") -> None:
        """Adds another shard."""
        self.rows += other.rows
        self.labelled += other.labelled
        self.seconds += other.seconds
        self.rejected.merge(other.rejected)


class _Waiting(NamedTuple):
    """A row whose batch is not full yet."""

    row: int
    prepared: Any


def label_shard(job: Job, labeller: Labeller, shard: int) -> Iterator[int]:
    """Writes one shard and its statistics; nothing if both are there.

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
    outcomes: list[Labels | Rejected] = [{}] * opened.shard_rows[shard]
    keys = [b""] * len(outcomes)
    for row, key, outcome in _outcomes(job, labeller, opened, shard):
        keys[row], outcomes[row] = key, outcome
        yield 1
    report = ShardReport(rows=len(outcomes))
    for key, outcome in zip(keys, outcomes, strict=True):
        if isinstance(outcome, Rejected):
            where = f"{key.decode(errors='replace')}: {outcome.detail}"
            report.rejected.add(outcome.reason, where)
        else:
            report.labelled += 1
    rows = (
        {store.KEY: key, **({} if isinstance(outcome, Rejected) else outcome)}
        for key, outcome in zip(keys, outcomes, strict=True)
    )
    store.write_shard(job.shards, job.expert.sidecar, shard, rows)
    report.seconds = round(time.perf_counter() - started, 3)
    statistics = json.dumps(dataclasses.asdict(report), indent=1) + "\n"
    files.write_atomically(_statistics_path(job, shard), statistics.encode())


def _outcomes(
    job: Job, labeller: Labeller, opened: store.Store, shard: int
) -> Iterator[tuple[int, bytes, Labels | Rejected]]:
    """Row, key and labels; batches are made of rows of one shape, in their order."""
    waiting: dict[Any, list[_Waiting]] = collections.defaultdict(list)
    keys: dict[int, bytes] = {}
    for row, (key, prepared) in enumerate(_prepared(job, labeller, opened, shard)):
        keys[row] = key
        if isinstance(prepared, Rejected):
            yield row, key, prepared
            continue
        same = waiting[labeller.shape(prepared)]
        same.append(_Waiting(row, prepared))
        if len(same) == job.expert.batch_size:
            yield from _labelled(job, labeller, keys, same)
            same.clear()
    for same in waiting.values():
        yield from _labelled(job, labeller, keys, same)


def _labelled(
    job: Job, labeller: Labeller, keys: Mapping[int, bytes], batch: Sequence[_Waiting]
) -> Iterator[tuple[int, bytes, Labels | Rejected]]:
    """A batch, filled up with its last sample: every batch of a shape has the same size."""
    if not batch:
        return
    fillers = [batch[-1].prepared] * (job.expert.batch_size - len(batch))
    found = labeller.label([*(item.prepared for item in batch), *fillers])
    for item, labels in zip(batch, found, strict=False):
        yield item.row, keys[item.row], labels


def _prepared(
    job: Job, labeller: Labeller, opened: store.Store, shard: int
) -> Iterator[tuple[bytes, Any]]:
    """Key and prepared sample of every row in order, a few batches ahead of the device."""
    columns, sees = job.expert.reads(), job.expert.sees

    def prepare(row: int) -> tuple[bytes, Any]:
        record = opened.read(shard, row, (*([IMAGE.name] if sees else []), *columns))
        (key,) = record[store.KEY]
        try:
            (encoded,) = record.get(IMAGE.name) or [b""]
            sample = Sample(
                key=key.decode(errors="surrogateescape"),
                image=decode.decode_image(encoded) if sees else _BLACK,
                columns={name: record[name] for name in columns if name in record},
            )
            return key, labeller.prepare(sample)
        except decode.DecodeError as error:
            return key, Rejected(_UNREADABLE, str(error))
        except Rejected as rejected:
            return key, rejected

    ahead: collections.deque[concurrent.futures.Future[tuple[bytes, Any]]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(job.threads) as pool:
        for row in range(opened.shard_rows[shard]):
            ahead.append(pool.submit(prepare, row))
            if len(ahead) > 2 * job.expert.batch_size:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def finished(job: Job, shard: int) -> ShardReport | None:
    """The statistics of a shard that is there; None while it has to be labelled."""
    if not store.shard_path(job.shards, job.expert.sidecar, shard).is_file():
        return None
    try:
        values = json.loads(_statistics_path(job, shard).read_text())
        return ShardReport(**{**values, "rejected": Findings(**values["rejected"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def begin(job: Job, digest: str) -> None:
    """Makes the folder of finished shards, or takes up one of the same settings and weights.

    Raises:
        UserError: shards of other settings wait there.
    """
    job.folder.mkdir(exist_ok=True)
    wanted = settings(job.expert, digest)
    path = job.folder / _JOB
    if path.is_file():
        begun = json.loads(path.read_text())
        changed = sorted(k for k in {*begun, *wanted} if begun.get(k) != wanted.get(k))
        if changed:
            differences = ", ".join(
                f"{key} {begun.get(key)!r} -> {wanted.get(key)!r}" for key in changed
            )
            raise UserError(
                f"{job.folder} has shards of other settings ({differences}): finish them with "
                "those, or remove the folder"
            )
        return
    files.write_atomically(path, (json.dumps(wanted, indent=1) + "\n").encode())


def settings(expert: Expert, digest: str) -> dict[str, Any]:
    """What a sidecar's provenance says of its expert, JSON-able."""
    values = json.loads(json.dumps(dataclasses.asdict(expert)))
    kind = type(expert)
    return {
        "expert": f"{kind.__module__}:{kind.__qualname__}",
        "settings": {k: v for k, v in values.items() if k != "batch_size"},
        "weights_sha256": digest,
        "licence": expert.licence.name,
        "commercial": expert.licence.commercial,
    }


def commit(job: Job, digest: str) -> ShardReport:
    """Makes finished shards the sidecar.

    Raises:
        UserError: shards whose keys are not those of the base.
    """
    base = store.Store.open(job.path)
    report = ShardReport()
    for shard in range(len(base.shard_rows)):
        part = finished(job, shard)
        assert part is not None, f"shard {shard} is not finished"
        _check_keys(job, base, shard)
        report.merge(part)
    sidecars.move_in(job.path, job.expert.sidecar, str(job.shards))
    provenance = {
        "tool": "tools.label",
        **settings(job.expert, digest),
        "labelled": report.labelled,
        "rejected_by_reason": report.rejected.counts,
    }
    store.finish_sidecar(job.path, job.expert.sidecar, job.expert.emits(), provenance)
    shutil.rmtree(job.folder)
    return report


def _check_keys(job: Job, base: store.Store, shard: int) -> None:
    """Reads every record, checksums included."""
    path = store.shard_path(job.shards, job.expert.sidecar, shard)
    try:
        records = tfrecord.RecordFile(path)
        payloads = (records[row] for row in range(len(records)))
        found = [example.decode(payload, (store.KEY,))[store.KEY] for payload in payloads]
    except (tfrecord.RecordError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}): remove it, and run again") from error
    wanted = [base.read(shard, row, ())[store.KEY] for row in range(base.shard_rows[shard])]
    if found != wanted:
        raise UserError(f"{path} has other keys than the base: remove it, and run again")


def _statistics_path(job: Job, shard: int) -> pathlib.Path:
    return job.folder / f"{job.expert.sidecar}-{shard:05d}.json"
