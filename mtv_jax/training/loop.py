# SPDX-License-Identifier: Apache-2.0
"""The training loop: batches in, metrics, checkpoints and evaluations out."""

import collections
import dataclasses
import hashlib
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from input_pipeline.loader import record_rows
from mtv_jax.core.errors import UserError
from mtv_jax.core.position import join_position
from mtv_jax.dist.runtime import Preemption, Watchdog
from mtv_jax.objectives.base import Objective
from mtv_jax.training.checkpoint import Checkpointer
from mtv_jax.training.memory import STEPS_AHEAD
from mtv_jax.training.metrics import (
    Chronometer,
    MetricWriter,
    ProgressLine,
    mean_of,
    truncate_after,
)
from mtv_jax.training.sentinel import Sentinel
from mtv_jax.training.state import TrainState
from mtv_jax.training.step import Metrics, TrainStep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """What the loop is given; it builds nothing itself.

    Attributes:
        workdir: the run directory.
        mesh: under which the step runs.
        step: `(state, frozen, batch) -> (state, metrics)`, jitted.
        frozen: trees the step reads and never changes.
        put: this process's rows to the global batch.
        total_steps: where the run ends.
        checkpoint_every: steps between saves.
        log_every: steps between lines.
        nonfinite: "skip" or "stop".
        max_skips: so many steps in a row may be skipped, or read no image; one more ends the run.
        watchdog_seconds: silence after which the process ends itself; 0: never.
        evaluate: called after every step, and once before the first when a run goes on; it knows
            what is due and what is there already.
        interference: metrics of what a step is about to be given; it knows when they are due.
        objectives: whose alarms are watched.
        profile: (first, last) steps to trace into `tb/`, or None.
    """

    workdir: pathlib.Path
    mesh: Mesh
    step: TrainStep
    frozen: PyTree
    put: Callable[[Mapping[str, np.ndarray]], dict[str, jax.Array]]
    total_steps: int
    checkpoint_every: int
    log_every: int
    nonfinite: str
    max_skips: int
    watchdog_seconds: int
    evaluate: Callable[[TrainState, int, Callable[[], None]], None]
    interference: Callable[[int, TrainState, PyTree, Mapping[str, jax.Array]], Metrics]
    objectives: Sequence[Objective]
    profile: range | None = None

    def run(
        self, state: TrainState, batches: Iterator[Mapping[str, Any]], saver: Checkpointer
    ) -> bool:
        """Trains to the end; False when a preemption stopped it (saved, to be resumed)."""
        first = int(state.step)
        preemption, watchdog = Preemption(), Watchdog(self.watchdog_seconds)
        reporter, tracer = _Reporter(self, first), _Tracer(self.workdir, self.profile)
        in_flight: collections.deque[jax.Array] = collections.deque()
        stopping = False
        if first:  # the evaluation after the checkpoint may have been cut off
            self.evaluate(state, first, watchdog.beat)
        for step in range(first + 1, self.total_steps + 1):
            watchdog.beat()
            tracer.note(step)
            started = time.perf_counter()
            local = next(batches)
            waited = time.perf_counter() - started
            with jax.set_mesh(self.mesh):
                batch = self.put(local)
                extra = self.interference(step, state, self.frozen, batch)
                state, metrics = self.step(state, self.frozen, batch)
            _bound(in_flight, metrics["loss"])
            stopping = preemption.reached(step)
            saving = step % self.checkpoint_every == 0 or step == self.total_steps or stopping
            reporter.note(step, local, {**metrics, **extra}, waited)
            if saving:  # what was logged is never behind what was saved
                reporter.flush(step)
                saver.save(step, state)
            if stopping:
                break
            self.evaluate(state, step, watchdog.beat)
        tracer.close()
        reporter.close()
        saver.wait()
        watchdog.stop()
        return not stopping


class _Tracer:
    """Profiles some steps into `tb/`."""

    def __init__(self, workdir: pathlib.Path, steps: range | None):
        self._folder, self._steps = workdir / "tb", steps
        self._running = False

    def note(self, step: int) -> None:
        """A step is about to begin."""
        if self._steps and step == self._steps.start:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        if self._steps and step == self._steps.stop:
            self.close()

    def close(self) -> None:
        """Ends a trace that is running."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False


def _bound(in_flight: collections.deque[jax.Array], newest: jax.Array) -> None:
    """Keeps the host from running too far ahead."""
    in_flight.append(newest)
    if len(in_flight) > STEPS_AHEAD:
        in_flight.popleft().block_until_ready()


class _Reporter:
    """Metrics, ledger and progress line of one process; metrics are fetched an interval late."""

    def __init__(self, loop: Loop, first: int):
        self._loop = loop
        self._chronometer = Chronometer()
        self._late: tuple[int, list[Mapping[str, Any]], dict[str, float]] | None = None
        self._recent: list[Mapping[str, Any]] = []
        self._skipped_in_a_row = 0
        self._unreadable_in_a_row = 0
        logs = loop.workdir / "logs"
        ledger = logs / f"ledger{jax.process_index()}.jsonl"
        truncate_after(ledger, first)
        self._ledger = ledger.open("a")
        self._leads = jax.process_index() == 0
        if self._leads:
            self._writer = MetricWriter(loop.workdir, first)
            self._line = ProgressLine(loop.total_steps)
            self._sentinel = Sentinel(
                loop.workdir, loop.objectives, total_steps=loop.total_steps, first_step=first
            )

    def note(
        self, step: int, local: Mapping[str, Any], metrics: Mapping[str, Any], waited: float
    ) -> None:
        """One step happened."""
        self._write_ledger(step, local)
        self._recent.append(metrics)
        images = len(local["position"]) * jax.process_count()
        self._chronometer.add(images=images, waited=waited)
        if step % self._loop.log_every == 0 or step == 1:
            self._end_interval(step)

    def flush(self, step: int) -> None:
        """Writes everything up to `step`."""
        if self._recent:
            self._end_interval(step)
        self._flush()

    def _end_interval(self, step: int) -> None:
        self._flush()
        self._late = (step, self._recent, self._chronometer.read())
        self._recent = []

    def close(self) -> None:
        """Writes what is still held back."""
        self._flush()
        self._ledger.close()
        if self._leads:
            self._writer.close()
            self._sentinel.close()

    def _flush(self) -> None:
        if self._late is None:
            return
        step, rows, rates = self._late
        self._late = None
        rows = jax.device_get(rows)
        self._guard(step, rows)
        if self._leads:
            values = {**mean_of(rows), **rates}
            self._writer.write(step, values)
            self._line.show(step, values)
            self._sentinel.check(step, values)

    def _guard(self, last: int, rows: list[Mapping[str, Any]]) -> None:
        """Names the objective of a loss that is not finite; stops when the policy says so."""
        for step, row in zip(range(last - len(rows) + 1, last + 1), rows, strict=True):
            if not row["skipped"]:
                self._skipped_in_a_row = 0
                continue
            self._skipped_in_a_row += 1
            bad = [k for k in row if k.endswith("/loss") and not np.isfinite(row[k])]
            what = ", ".join(k.removesuffix("/loss") for k in bad) or "the gradient"
            message = f"step {step}: {what} not finite; the step was skipped"
            print(message, file=sys.stderr, flush=True)
            if self._loop.nonfinite == "stop" or self._skipped_in_a_row > self._loop.max_skips:
                raise UserError(
                    f"{message}; stopping by log.nonfinite={self._loop.nonfinite} after "
                    f"{self._skipped_in_a_row} in a row. The last checkpoint is intact: lower "
                    "optim.lr or look at the batch in logs/"
                )

    def _write_ledger(self, step: int, local: Mapping[str, Any]) -> None:
        ids = np.ascontiguousarray(local["record_id"])
        positions = join_position(local["position"])
        row = {
            "step": step,
            "first": int(positions[0]),
            "rows": len(positions),
            "records": hashlib.sha256(ids.tobytes()).hexdigest()[:16],
        }
        unreadable = ~local["valid"]["image"] if "image" in local["valid"] else np.zeros(1, bool)
        if unreadable.any():
            row["unreadable"] = record_rows(local, unreadable)
        self._unreadable_in_a_row = self._unreadable_in_a_row + 1 if unreadable.all() else 0
        if self._unreadable_in_a_row > self._loop.max_skips:
            raise UserError(
                f"no image could be read in the last {self._unreadable_in_a_row} batches (reasons "
                "in logs/): look at the store with python -m tools.data.verify"
            )
        self._ledger.write(json.dumps(row) + "\n")
        self._ledger.flush()
