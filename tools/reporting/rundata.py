# SPDX-License-Identifier: Apache-2.0
"""What a run directory says about its run. Reads files only; a missing one is no error."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mtv_jax.core.config import fingerprint
from tools.reporting.curves import Points

Table = Mapping[str, Mapping[str, float | None]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbers:
    """Evaluation results.

    Attributes:
        source: the file they are from.
        step: the checkpoint they are of.
        table: {"zeroshot/top1": {"value": …, "chance": … or None}, …}.
    """

    source: str
    step: int
    table: Table


def read_text(workdir: pathlib.Path, name: str) -> str:
    """A file of the run directory, "" when it is not there."""
    path = workdir / name
    return path.read_text(errors="replace") if path.is_file() else ""


def read_curves(workdir: pathlib.Path) -> dict[str, Points]:
    """Every metric of `metrics.jsonl` by step; points that were not finite are left out."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in _read_rows(workdir, "metrics.jsonl"):
        for key, value in row.items():
            if key != "step" and value is not None:
                curves.setdefault(key, []).append((row["step"], value))
    return curves


def read_alarms(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """What the sentinel of training reported, in order."""
    return list(_read_rows(workdir, "alarms.jsonl"))


def read_eval_curves(workdir: pathlib.Path) -> dict[str, Points]:
    """Every finite number of `evals/` by step."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for path in _eval_files(workdir):
        for key, entry in json.loads(path.read_text()).items():
            if entry["value"] is not None:
                curves.setdefault(key, []).append((int(path.stem), entry["value"]))
    return curves


def read_numbers(workdir: pathlib.Path) -> Numbers | None:
    """The table of `summary.json`, else of the newest file of `evals/`, else None."""
    if text := read_text(workdir, "summary.json"):
        summary = json.loads(text)
        return Numbers(source="summary.json", step=summary["step"], table=summary["numbers"])
    files = _eval_files(workdir)
    if not files:
        return None
    newest = files[-1]
    table = json.loads(newest.read_text())
    return Numbers(source=f"evals/{newest.name}", step=int(newest.stem), table=table)


def summary_facts(
    workdir: pathlib.Path, config: Mapping[str, Any], curves: Mapping[str, Points]
) -> dict[str, str]:
    """The run in a few lines, by name."""
    step = int(max((points[-1][0] for points in curves.values()), default=0))
    total = config["total_steps"]
    done = "complete" if (workdir / "DONE").exists() else "not complete"
    facts = {
        "State": f"{done}: last logged step {step:,} of {total:,}",
        "Images seen": f"{step * config['batch_size']:,} in batches of {config['batch_size']:,}",
        "Objectives": ", ".join(config["objectives"]),
        "Config fingerprint": fingerprint(config),
        "Git commit": _commit(read_text(workdir, "git.txt")),
        "Parameters": _parameters(read_text(workdir, "params.tsv")),
    }
    return {name: value for name, value in facts.items() if value}


def _read_rows(workdir: pathlib.Path, name: str) -> Iterator[dict[str, Any]]:
    for line in read_text(workdir, name).splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue  # the line a kill cut short


def _eval_files(workdir: pathlib.Path) -> list[pathlib.Path]:
    return sorted(p for p in (workdir / "evals").glob("*.json") if p.stem.isdigit())


def _commit(text: str) -> str:
    """First line of `git.txt`; what follows it is what was not committed."""
    first, _, rest = text.partition("\n")
    return f"{first} with uncommitted changes (git.txt)" if rest.strip() else first


def _parameters(text: str) -> str:
    """Counts of `params.tsv`, in all and by part ("backbone/image", "heads")."""
    counts: dict[str, int] = {}
    for line in text.splitlines()[1:]:
        path, _, count, _ = line.split("\t")
        part = path.split("/")[1] + " tower" if path.startswith("backbone/") else "heads"
        counts[part] = counts.get(part, 0) + int(count)
    parts = ", ".join(f"{part} {count:,}" for part, count in counts.items())
    return f"{sum(counts.values()):,} ({parts})" if counts else ""
