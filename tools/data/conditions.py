# SPDX-License-Identifier: Apache-2.0
"""Conditions on what is known of every row: `--min`, `--max`, `--only`, `--top`."""

import argparse
import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mtv_jax.core.errors import UserError, closest

KINDS = {
    "min": "at least this number: clip_l14_similarity_score=0.28; may be repeated",
    "max": "at most this number: punsafe=0.5; may be repeated",
    "only": "one of these words: nsfw=UNLIKELY,UNSURE; may be repeated",
    "top": "the best share of the rows left by then: clip_l14_similarity_score=0.3",
}


@dataclasses.dataclass(frozen=True)
class Condition:
    """What is wanted of a column.

    Attributes:
        kind: one of `min`, `max`, `only`, `top`.
        column: its name.
        value: as given.
    """

    kind: str
    column: str
    value: str

    def __post_init__(self) -> None:
        fault = not self.column or not self.value
        if self.is_number and not fault:
            number = _number(self.value)
            fault = math.isnan(number) or (self.kind == "top" and not 0 < number <= 1)
        if fault:
            raise UserError(f"{self}: want --{self.kind} COLUMN=VALUE, {KINDS[self.kind]}")

    def __str__(self) -> str:
        return f"--{self.kind} {self.column}={self.value}"

    @property
    def is_number(self) -> bool:
        """Whether the column is read as numbers."""
        return self.kind != "only"

    @property
    def words(self) -> list[str]:
        """Of `only`."""
        return [word.strip() for word in self.value.split(",")]

    def fails(self, values: np.ndarray, among: np.ndarray) -> np.ndarray:
        """Which rows have a value that is not wanted.

        Args:
            values: [n], numbers or text; NaN or "" where a row has none.
            among: bool [n], the rows that a share is a share of.

        Returns:
            bool [n], false where there is no value.
        """
        has = ~lacks(values)
        if self.kind == "only":
            return has & ~np.isin(values, self.words)
        number = _number(self.value)
        if self.kind == "min":
            return has & (values < number)
        if self.kind == "max":
            return has & (values > number)
        rows = np.flatnonzero(has & among)
        best = np.argsort(-values[rows], kind="stable")[: round(number * len(rows))]
        outside = has.copy()
        outside[rows[best]] = False
        return outside


def lacks(values: np.ndarray) -> np.ndarray:
    """bool [n]: which rows have no value."""
    return values == "" if values.dtype.kind == "U" else np.isnan(values)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags for conditions, and what to do where a value is missing."""
    group = parser.add_argument_group("columns")
    for kind, help_ in KINDS.items():
        group.add_argument(f"--{kind}", action="append", default=[], metavar="COLUMN=…", help=help_)
    group.add_argument(
        "--missing",
        choices=("keep", "drop"),
        default="keep",
        help="a row that lacks the value of a condition (default: keep it)",
    )


def parse(arguments: argparse.Namespace) -> list[Condition]:
    """The conditions of a command line, in the order in which they are applied."""
    return [
        Condition(kind, *(part.strip() for part in (*text.split("=", 1), "")[:2]))
        for kind in KINDS
        for text in getattr(arguments, kind)
    ]


def check_columns(
    conditions: Sequence[Condition],
    numbers: Collection[str],
    words: Collection[str],
    where: str,
) -> None:
    """Raises a `UserError` for a condition on a column that is not there, or of another kind."""
    for condition in conditions:
        known = numbers if condition.is_number else words
        if condition.column not in known:
            other = " as text" if condition.column in words else ""
            other = " as numbers" if condition.column in numbers else other
            fault = f"has the column{other}" if other else "has no such column"
            raise UserError(f"{condition}: {where} {fault}{closest(condition.column, known)}")


def settings(conditions: Sequence[Condition]) -> Mapping[str, Any]:
    """For a report."""
    return {kind: [f"{c.column}={c.value}" for c in conditions if c.kind == kind] for kind in KINDS}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
