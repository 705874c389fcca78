# SPDX-License-Identifier: Apache-2.0
"""An expert over a whole store, by an engine: on this machine, or on many through Ray."""

import abc
import shutil
from collections.abc import Iterator, Sequence

from input_pipeline import files, manifests
from input_pipeline.store import Store
from mtv_jax.core.progress import Progress
from tools.label import driver, jobs
from tools.label.base import Labeller
from tools.label.funnel import Funnel
from tools.label.jobs import Job


class Engine(abc.ABC):
    """Where shards are labelled.

    Attributes:
        devices: that label at the same time.
    """

    devices: int = 1

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
        UserError: columns, weights or packages that are missing, other settings were begun, or
            another process is at it.
    """
    engine = engine or ThisMachine()
    base = job.opened()
    with files.sole_writer(job.path, job.expert.sidecar):
        if job.expert.sidecar in base.sidecars:
            shutil.rmtree(job.folder, ignore_errors=True)  # of a run killed in its last moment
            return _already(job)
        digest = engine.load(job)
        jobs.begin(job, digest)
        if not jobs.complete(job):
            _label_missing(job, engine, base)
        return summary(job, jobs.commit(job, digest))


def _already(job: Job) -> str:
    """That there is such a sidecar, and what it was made with in place of what was asked for."""
    there = manifests.read_sidecar(job.path, job.expert.sidecar)["provenance"]
    changes = jobs.differences(there, jobs.settings(job, there.get("weights_sha256")))
    told = f"{job.expert.name}: {job.path} has a sidecar {job.expert.sidecar} already"
    if not changes:
        return told
    name = f"--config.experts.{job.expert.name}.sidecar"
    return f"{told}, MADE OTHERWISE ({changes}): remove it or write another, by {name}"


def _label_missing(job: Job, engine: Engine, base: Store) -> None:
    reports = [jobs.finished(job, shard) for shard in range(len(base.shard_rows))]
    done = sum(report.rows for report in reports if report)
    progress = Progress(job.expert.name, base.num_rows, unit="images", devices=engine.devices)
    progress.skip(done)
    missing = [shard for shard, report in enumerate(reports) if report is None]
    for rows in engine.label(job, missing):
        done += rows
        progress.show(done)
    progress.finish(done)


def summary(job: Job, report: Funnel) -> str:
    """What became of every image."""
    licence = job.expert.licence.name
    return (
        f"{job.path}: sidecar {job.expert.sidecar} by {job.expert.name} "
        f"(licence of the labels: {licence})\n{report.table()}"
    )
