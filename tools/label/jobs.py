# SPDX-License-Identifier: Apache-2.0
"""One expert over one store: what is asked, what waits, and when it becomes a sidecar.

Finished shards wait in `STORE/.SIDECAR/shards`, each with its funnel, until all are there. The
folder says what they were made with, so that nothing else is mixed in.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline import files, manifests, store
from mtv_jax.core.errors import UserError
from tools.data import sidecars
from tools.label import funnel
from tools.label.base import Expert, digest_of
from tools.label.funnel import Funnel

_JOB = "job.json"
_COMPLETE = "complete"  # a file that says so


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

    def funnel_path(self, shard: int) -> pathlib.Path:
        """Where the funnel of a shard waits."""
        return funnel.path_of(self.shards, self.expert.sidecar, shard)

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
        return {column: max(holders[column], key=_version) for column in wanted}

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


def _version(sidecar: str) -> tuple[str, int]:
    """In order of versions: depth_v2 comes before depth_v10."""
    name, _, number = sidecar.rpartition("_v")
    return (name, int(number)) if number.isdecimal() else (sidecar, 0)


def finished(job: Job, shard: int) -> Funnel | None:
    """The funnel of a shard that is there; None while it has to be labelled."""
    if not store.shard_path(job.shards, job.expert.sidecar, shard).is_file():
        return None
    return funnel.read(job.funnel_path(shard))


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
        if part is None:
            lost = funnel.path_of(job.path, sidecar, shard)
            raise UserError(f"{lost} is lost or damaged: remove {job.folder}, and run again")
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
