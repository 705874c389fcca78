# SPDX-License-Identifier: Apache-2.0
"""The funnel of a selection: how many rows each rule took out, and a few of them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mtv_jax.core.errors import UserError

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

    def take_random(self, count: int, seed: int) -> None:
        """Takes out all but `count` rows: those stay whose numbers, scrambled, are smallest.

        So fewer rows nest in more, and another rule does not draw all of them anew.
        """
        rows = np.flatnonzero(self.alive)
        if count > len(rows):
            raise UserError(f"--take {count:,}: only {len(rows):,} rows are left")
        order = np.argsort(_scrambled(rows.astype(np.uint64), seed), kind="stable")
        fails = np.zeros(len(self.alive), bool)
        fails[rows[order[count:]]] = True
        self.take_out(f"not among {count:,} taken", fails)

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


def _scrambled(rows: np.ndarray, seed: int) -> np.ndarray:
    """A bijection of uint64 row numbers by seed (SplitMix64's finaliser)."""
    values = rows + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))
