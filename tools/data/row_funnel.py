# SPDX-License-Identifier: Apache-2.0
"""The funnel of a selection: how many rows each rule took out, and a few of them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Step:
    """What one rule did: rows taken out, how many of them because they lack a value, some keys."""

    rule: str
    removed: int
    left: int
    missing: int = 0
    examples: tuple[str, ...] = ()


class RowFunnel:
    """Rows that are still in, and what became of the others.

    Attributes:
        alive: bool [n].
        steps: one a rule.
    """

    def __init__(self, rows_in: np.ndarray, name_of: Callable[[int], str]):
        """Starts from `rows_in` (bool [n]); `name_of` gives the key of a row."""
        self.alive = rows_in.copy()
        self.rows_in = int(rows_in.sum())
        self.steps: list[Step] = []
        self._name_of = name_of

    def take_out(self, rule: str, fails: np.ndarray, missing: np.ndarray | None = None) -> None:
        """Takes out the rows where `fails`; `missing` says which of them lack a value."""
        out = self.alive & fails
        rows = np.flatnonzero(out)
        self.alive &= ~fails
        lacking = 0 if missing is None else int((out & missing).sum())
        examples = tuple(self._name_of(int(row)) for row in rows[:_EXAMPLES])
        self.steps.append(Step(rule, len(rows), int(self.alive.sum()), lacking, examples))

    def to_json(self) -> dict[str, Any]:
        """The sums."""
        return {
            "rows_in": self.rows_in,
            "steps": [dataclasses.asdict(step) for step in self.steps],
            "rows_out": int(self.alive.sum()),
        }

    def table(self) -> str:
        """The sums as aligned text."""
        lines = [_line("rows in", self.rows_in, "")]
        for step in self.steps:
            lacking = f"{step.missing:,} lack the value; " if step.missing else ""
            lines.append(_line(f"  {step.rule}", -step.removed, lacking + _some(step.examples)))
        return "\n".join([*lines, _line("rows left", int(self.alive.sum()), "")])


def _line(name: str, number: int, note: str) -> str:
    return f"{name:<48}{number:>14,}  {note}".rstrip()


def _some(examples: Sequence[str]) -> str:
    return f"e.g. {', '.join(examples)}" if examples else ""
