# SPDX-License-Identifier: Apache-2.0
"""Runs evaluators over one model and gathers their numbers, each with its chance level."""

import json
import math
import pathlib
import time
from collections.abc import Iterable, Mapping

from mtv_jax.core.errors import UserError
from mtv_jax.evaluators.base import EvalContext, Evaluator

Numbers = dict[str, float]


def run_suite(evaluators: Iterable[Evaluator], ctx: EvalContext) -> dict[str, Numbers]:
    """Numbers by evaluator; one that cannot run on this model says why and is left out."""
    results: dict[str, Numbers] = {}
    for evaluator in evaluators:
        if reason := evaluator.unavailable(ctx.model):
            print(f"{evaluator.name}: unavailable ({reason})", flush=True)
            continue
        started = time.perf_counter()
        results[evaluator.name] = evaluator.run(ctx)
        print(f"{evaluator.name}: {time.perf_counter() - started:.1f} s", flush=True)
    return results


def with_chance(results: Mapping[str, Numbers]) -> dict[str, dict[str, float | None]]:
    """{"zeroshot/top1": {"value": …, "chance": … or None}, …}; what is not finite is None."""
    table: dict[str, dict[str, float | None]] = {}
    for name, numbers in results.items():
        for key, value in numbers.items():
            if not key.endswith("/chance"):
                chance = numbers.get(f"{key}/chance")
                value = value if math.isfinite(value) else None
                table[f"{name}/{key}"] = {"value": value, "chance": chance}
    return table


def format_table(table: Mapping[str, Mapping[str, float | None]]) -> str:
    """The table as aligned text: number, chance level, ratio."""
    rows = [f"{'':32} {'value':>10} {'chance':>10} {'x chance':>9}"]
    for key, entry in table.items():
        value, chance = entry["value"], entry["chance"]
        ratio = value / chance if chance and value is not None else None
        numbers = ((value, ">10.4f"), (chance, ">10.4f"), (ratio, ">9.1f"))
        rows.append(f"{key:32} " + " ".join(_cell(number, spec) for number, spec in numbers))
    return "\n".join(rows)


def _cell(number: float | None, spec: str) -> str:
    return f"{'-':>{spec[1:].split('.')[0]}}" if number is None else format(number, spec)


def write_json(path: pathlib.Path, content: object) -> None:
    """Replaces `path` by `content` as JSON.

    Raises:
        UserError: the path cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
