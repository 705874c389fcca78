# SPDX-License-Identifier: Apache-2.0
"""What became of the images of a sidecar's shard: `SIDECAR-00000.funnel.json`, beside the shard."""

import dataclasses
import json
import pathlib

from input_pipeline import files
from tools.data.verify import Findings
from tools.label.base import Outcome

NOT_SELECTED = "not in the selection"


@dataclasses.dataclass
class Funnel:
    """Of one shard, or of all together.

    Attributes:
        rows: images.
        labelled: images with labels.
        seconds: it took.
        rejected: images without, by reason, with the first few.
        dropped: parts of labels (boxes) that were left out, by reason.
        rejections: by key, why it has no labels; only of one shard.
    """

    rows: int = 0
    labelled: int = 0
    seconds: float = 0.0
    rejected: Findings = dataclasses.field(default_factory=Findings)
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    rejections: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, key: str, outcome: Outcome) -> None:
        """One image."""
        self.rows += 1
        for reason, count in outcome.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        if outcome.labels:
            self.labelled += 1
            return
        self.rejected.add(outcome.reason, f"{key}: {outcome.detail}".removesuffix(": "))
        if outcome.reason == NOT_SELECTED:
            return  # there may be many, and no key says more than the selection
        self.rejections[key] = f"{outcome.reason}: {outcome.detail}".removesuffix(": ")

    def merge(self, other: "Funnel") -> None:
        """Adds another shard."""
        self.rows += other.rows
        self.labelled += other.labelled
        self.seconds += other.seconds
        self.rejected.merge(other.rejected)
        for reason, count in other.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def write(self, path: pathlib.Path) -> None:
        """As JSON."""
        text = json.dumps(dataclasses.asdict(self), indent=1) + "\n"
        files.write_atomically(path, text.encode())

    def table(self) -> str:
        """The sums in words, a line each."""
        without = sum(self.rejected.counts.values())
        lines = [f"rows {self.rows:,}: {self.labelled:,} labelled, {without:,} without labels"]
        for reason, count in self.rejected.counts.items():
            lines.append(f"without, {reason}: {count:,}")
            lines += [f"  {example}" for example in self.rejected.examples[reason]]
        lines += [f"left out, {reason}: {count:,}" for reason, count in self.dropped.items()]
        return "\n".join(lines)


def read(path: pathlib.Path) -> Funnel | None:
    """A funnel that was written; None where there is none, or a damaged one."""
    try:
        values = json.loads(path.read_text())
        return Funnel(**{**values, "rejected": Findings(**values["rejected"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def path_of(folder: pathlib.Path, sidecar: str, shard: int) -> pathlib.Path:
    """Where the funnel of a shard is."""
    return folder / f"{sidecar}-{shard:05d}.funnel.json"
