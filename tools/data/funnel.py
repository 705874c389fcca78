# SPDX-License-Identifier: Apache-2.0
"""The funnel report: what became of every sample that went into an ingest, and why.

`funnel-00000.jsonl` has a line for every sample of input shard 0; `upstream-00000.jsonl` one for
every row that the downloader had already lost; `sums-00000.jsonl` the sums of that shard, in one
line, and `funnel.json` those of all. Always read = written + written without caption + rejected.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from input_pipeline import files
from tools.data.upstream import LostRow

WRITTEN = "written"
WITHOUT_CAPTION = "written_without_caption"
REJECTED = "rejected"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one sample: its outcome, the reason of a rejection, the changes made."""

    key: str
    outcome: str
    reason: str = ""
    changes: tuple[str, ...] = ()

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":")) + "\n"


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """The sums of one shard.

    Attributes:
        source: name of the input shard.
        outcomes: samples by outcome.
        reasons: rejected samples by reason.
        changes: written samples by change.
        upstream: rows lost before this ingest, by the downloader's status.
        columns: written samples by column of scores that they have.
        broken: where the input shard breaks off; "" for a whole one.
    """

    source: str
    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]
    changes: Mapping[str, int]
    upstream: Mapping[str, int]
    columns: Mapping[str, int]
    broken: str = ""

    @property
    def read(self) -> int:
        """Samples that came in."""
        return sum(self.outcomes.values())

    @property
    def rows(self) -> int:
        """Samples that were stored."""
        return self.outcomes.get(WRITTEN, 0) + self.outcomes.get(WITHOUT_CAPTION, 0)

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":")) + "\n"


@dataclasses.dataclass
class Tally:
    """What is noted while one shard is made: verdicts, lost rows, columns of scores, the break."""

    verdicts: list[Verdict] = dataclasses.field(default_factory=list)
    lost: list[LostRow] = dataclasses.field(default_factory=list)
    columns: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    broken: str = ""

    def report(self, source: str) -> ShardReport:
        """The sums."""
        outcomes, reasons, changes = (collections.Counter() for _ in range(3))
        for verdict in self.verdicts:
            outcomes[verdict.outcome] += 1
            reasons.update([verdict.reason] if verdict.reason else [])
            changes.update(verdict.changes)
        statuses = collections.Counter(row.status for row in self.lost)
        sums = map(dict, (outcomes, reasons, changes, statuses, self.columns))
        return ShardReport(source, *sums, self.broken)


def write_lines(path: pathlib.Path, lines: Iterable[str]) -> None:
    """Writes `path` in one piece."""
    files.write_atomically(path, "".join(lines).encode())


def summarise(reports: Iterable[ShardReport], asked: Iterable[str] = ()) -> dict[str, Any]:
    """The sums over all shards, and those shards that broke off.

    Args:
        reports: of the shards.
        asked: columns of scores to name even where no sample has them.
    """
    reports = list(reports)
    sums: dict[str, collections.Counter[str]] = {}
    for name in ("outcomes", "reasons", "changes", "upstream", "columns"):
        sums[name] = collections.Counter()
        for report in reports:
            sums[name].update(getattr(report, name))
    return {
        "read": sum(report.read for report in reports),
        **{name: sums["outcomes"][name] for name in (WRITTEN, WITHOUT_CAPTION, REJECTED)},
        "rejected_by_reason": dict(sorted(sums["reasons"].items())),
        "changes": dict(sorted(sums["changes"].items())),
        "columns": dict(sorted({**dict.fromkeys(asked, 0), **sums["columns"]}.items())),
        "failed_upstream": dict(sorted(sums["upstream"].items())),
        "broken_archives": {report.source: report.broken for report in reports if report.broken},
    }


def table(summary: Mapping[str, Any]) -> str:
    """The summary as aligned text."""
    rows: list[tuple[str, int | str]] = [("read", summary["read"])]
    rows.append(("written", summary[WRITTEN]))
    rows.append(("written without caption", summary[WITHOUT_CAPTION]))
    rows.append(("rejected", summary[REJECTED]))
    rows += [(f"  {name}", count) for name, count in summary["rejected_by_reason"].items()]
    rows.append(("changed on the way", ""))
    rows += [(f"  {name}", count) for name, count in summary["changes"].items()]
    if summary["columns"]:
        rows.append(("have a score", ""))
        rows += [(f"  {name}", count) for name, count in summary["columns"].items()]
    rows.append(("failed upstream (not counted above)", sum(summary["failed_upstream"].values())))
    rows += [(f"  {name}", count) for name, count in summary["failed_upstream"].items()]
    return "\n".join(
        f"{name:<36}{count:>14,}" if isinstance(count, int) else name for name, count in rows
    )
