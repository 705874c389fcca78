# SPDX-License-Identifier: Apache-2.0
"""Watches objectives for the signs of collapse that they declare, and says so in words.

What it reports is a function of the lines of `metrics.jsonl` alone. A run that goes on reads them
again, so it knows what rang before, and a killed run's `alarms.jsonl` equals that of a run never
killed.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mtv_jax.objectives.base import Alarm, Objective
from mtv_jax.training.metrics import truncate_after

# One noisy interval is no collapse, and two may be neighbours by chance; a collapse stays. A run of
# fewer intervals reports nothing: it is over before anyone could act.
IN_A_ROW = 3


@dataclasses.dataclass(kw_only=True)
class _Watch:
    """One alarm of one objective.

    Attributes:
        objective: its name.
        alarm: what it declares.
        reported: whether it was reported, and has not been quiet for long enough since.
        against: intervals in a row that contradict `reported`.
    """

    objective: str
    alarm: Alarm
    reported: bool = False
    against: int = 0

    def starts(self, values: Mapping[str, float], progress: float) -> bool:
        """Takes in an interval; whether the alarm is to be reported now."""
        prefix = f"{self.objective}/"
        own = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
        self.against = self.against + 1 if self.alarm.rings(own, progress) != self.reported else 0
        if self.against < IN_A_ROW:
            return False
        self.reported, self.against = not self.reported, 0
        return self.reported

    def metrics(self, values: Mapping[str, float]) -> dict[str, float]:
        """The numbers that the alarm looks at."""
        names = (*self.alarm.above, *self.alarm.below)
        return {name: float(values[f"{self.objective}/{name}"]) for name in names}


class Sentinel:
    """Reports alarms on stderr and in `alarms.jsonl`. Only process 0 has one.

    Args:
        workdir: the run directory; its `metrics.jsonl` is that of the steps taken.
        objectives: whose alarms are watched.
        total_steps: length of the run.
        first_step: steps taken; later lines of `alarms.jsonl` are dropped.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        objectives: Sequence[Objective],
        *,
        total_steps: int,
        first_step: int,
    ):
        self._path, self._total, self._rang = workdir / "alarms.jsonl", total_steps, 0
        self._watches = [_Watch(objective=o.name, alarm=a) for o in objectives for a in o.alarms()]
        truncate_after(self._path, first_step)
        for row in _past(workdir / "metrics.jsonl", first_step):
            self._take(row["step"], row)

    def check(self, step: int, values: Mapping[str, float]) -> None:
        """Takes in the means of an interval that ended at `step`; reports what rings by now."""
        for watch in self._take(step, values):
            metrics, alarm = watch.metrics(values), watch.alarm
            told = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            print(
                f"step {step}: alarm: {watch.objective}: {alarm.problem} ({told}). "
                f"Try: {alarm.remedy}",
                file=sys.stderr,
                flush=True,
            )
            row = {"step": step, "objective": watch.objective, "problem": alarm.problem}
            with self._path.open("a") as file:
                file.write(json.dumps({**row, "remedy": alarm.remedy, "metrics": metrics}) + "\n")

    def close(self) -> None:
        """Reminds of what rang."""
        if self._rang:
            count = "1 alarm" if self._rang == 1 else f"{self._rang} alarms"
            print(f"{count} rang, see {self._path}", file=sys.stderr, flush=True)

    def _take(self, step: int, values: Mapping[str, float]) -> list[_Watch]:
        """The alarms to be reported after one more interval."""
        starting = [watch for watch in self._watches if watch.starts(values, step / self._total)]
        self._rang += len(starting)
        return starting


def _past(path: pathlib.Path, last_step: int) -> list[dict[str, Any]]:
    """The lines up to a step, without the numbers that were not finite."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if v is not None} for row in rows if row["step"] <= last_step
    ]
