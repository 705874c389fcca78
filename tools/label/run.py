# SPDX-License-Identifier: Apache-2.0
"""An expert over a whole store, by an engine: on this machine, or on many through Ray."""

import abc
from collections.abc import Iterator, Sequence

from mtv_jax.core.progress import Progress
from tools.label import driver
from tools.label.base import Labeller
from tools.label.driver import Job, ShardReport


class Engine(abc.ABC):
    """Where shards are labelled."""

    @abc.abstractmethod
    def load(self, job: Job) -> str:
        """Loads the expert; the sha256 of its weights.

        Raises:
            UserError: weights or packages that are missing.
        """

    @abc.abstractmethod
    def label(self, job: Job, shards: Sequence[int]) -> Iterator[int]:
        """Labels shards, and tells now and then how many rows more are done."""


class ThisMachine(Engine):
    """One process, one device."""

    def load(self, job: Job) -> str:
        self._labeller: Labeller = job.expert.load(job.device)
        return self._labeller.digest

    def label(self, job: Job, shards: Sequence[int]) -> Iterator[int]:
        for shard in shards:
            yield from driver.label_shard(job, self._labeller, shard)


def label_store(job: Job, engine: Engine | None = None) -> str:
    """Labels what is missing, makes it a sidecar, and says in words what came of it.

    Raises:
        UserError: columns, weights or packages that are missing, or other settings were begun.
    """
    engine = engine or ThisMachine()
    base = job.opened()
    if job.expert.sidecar in base.sidecars:
        return f"{job.expert.name}: {job.path} has a sidecar {job.expert.sidecar} already"
    digest = engine.load(job)
    driver.begin(job, digest)
    reports = [driver.finished(job, shard) for shard in range(len(base.shard_rows))]
    done = sum(report.rows for report in reports if report)
    progress = Progress(job.expert.name, base.num_rows, unit="images")
    progress.skip(done)
    missing = [shard for shard, report in enumerate(reports) if report is None]
    for rows in engine.label(job, missing):
        done += rows
        progress.show(done)
    progress.finish(done)
    return summary(job, driver.commit(job, digest))


def summary(job: Job, report: ShardReport) -> str:
    """What became of every image."""
    rejected = sum(report.rejected.counts.values())
    lines = [
        f"{job.path}: sidecar {job.expert.sidecar} by {job.expert.name} "
        f"(licence of the labels: {job.expert.licence.name})",
        f"rows {report.rows:,}: {report.labelled:,} labelled, {rejected:,} without labels",
    ]
    for reason, count in report.rejected.counts.items():
        lines.append(f"without, {reason}: {count:,}")
        lines += [f"  {example}" for example in report.rejected.examples[reason]]
    return "\n".join(lines)
