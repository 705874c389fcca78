# SPDX-License-Identifier: Apache-2.0
"""What the label driver costs by itself: rows a second with experts that do nothing."""

import dataclasses
import pathlib
import shutil
import statistics
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from mtv_jax.core.fields import Field
from tools.label import driver
from tools.label.base import Expert, Labeller, Licence, Outcome, Sample
from tools.label.jobs import Job

_LABEL = Field(name="nothing", shape="1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blind(Expert):
    """Labels every row with a zero."""

    sidecar: str = "nothing_v1"

    sees: ClassVar[bool] = False

    @property
    def licence(self) -> Licence:
        return Licence(name="none", commercial=True)

    def emits(self) -> tuple[Field, ...]:
        return (_LABEL,)

    def load(self, device: str) -> "_Nothing":
        del device
        return _Nothing()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seeing(Blind):
    """The same, but images are decoded."""

    sees: ClassVar[bool] = True


class _Nothing(Labeller):
    def prepare(self, sample: Sample) -> None:
        del sample

    def infer(self, prepared: Sequence[Any]) -> Sequence[Any]:
        return prepared

    def finish(self, prepared: Any, result: Any) -> Outcome:
        del prepared, result
        return Outcome(labels={_LABEL.name: [0.0]})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate:
    """Rows a second; the median of several times over the store."""

    sees: bool
    threads: int
    rows_per_s: float


def time_driver(path: pathlib.Path, threads: Sequence[int], repeats: int) -> list[Rate]:
    """Labels the only shard of a store again and again, each number of threads in turn."""
    kinds: list[tuple[Blind, int]] = [
        (expert, count)
        for expert in (Blind(name="blind"), Seeing(name="seeing"))
        for count in threads
    ]
    rates: dict[tuple[bool, int], list[float]] = {}
    for _ in range(repeats):
        for expert, count in kinds:
            job = Job(path=path, expert=expert, threads=count)
            started = time.perf_counter()
            rows = sum(driver.label_shard(job, expert.load("cpu"), 0))
            rate = rows / (time.perf_counter() - started)
            rates.setdefault((expert.sees, count), []).append(rate)
            shutil.rmtree(job.folder)
    return [
        Rate(sees=sees, threads=count, rows_per_s=statistics.median(measured))
        for (sees, count), measured in rates.items()
    ]
