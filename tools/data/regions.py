# SPDX-License-Identifier: Apache-2.0
"""Boxes with phrases that you already have, from a detector or by hand, as a sidecar of a store.

    python -m tools.data.regions --store stores/photos --regions regions.jsonl

The file is one of two, told apart by what is in it:

JSON lines, one object an image. `width` and `height` are those of the image that the boxes refer
to, a box is x1, y1, x2, y2 in its pixels (with `--boxes fraction`, in [0, 1]), `score` is optional:

    {"key": "cats/01.jpg", "width": 640, "height": 480,
     "regions": [{"box": [12, 30, 200, 310], "phrase": "a red car", "score": 0.9}]}

(on one line); or COCO instances, one object with `images`, `annotations` and `categories`: the key
is `file_name`, the phrase the name of the category; crowds are passed over.

Which entry belongs to which row: that of key `cats/01`, with or without the ending of an image, to
the row of key `cats/01.jpg`. A store made from a folder of images has as key the path of the image
below the folder that all images share; one made from tars, the name in the tar.

Boxes may refer to the image before it was resized, yet must have its aspect, upright. They are
clipped to it, kept from --min_side and --min_score on, at most 20 an image, and stored in falling
order of scores. An entry that cannot be used is refused, and the summary says why; a file with a
malformed one is refused as a whole.
"""

import argparse
import dataclasses
import functools
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from input_pipeline import store
from input_pipeline.example import Value
from input_pipeline.vocabulary import Vocabulary
from mtv_jax.core.errors import UserError, report_user_errors
from mtv_jax.core.fields import BOXES, PHRASES, SCORES
from mtv_jax.core.progress import Progress
from tools.data import parallel, sidecars
from tools.data.depth_values import Rejected
from tools.data.region_files import Entries, index_entries, row_name
from tools.data.region_values import Limits, check_size, keep_regions
from tools.data.verify import Findings

_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Job:
    """What is made of which file.

    Attributes:
        path: the store.
        regions: the file.
        limits: which regions are kept.
        sidecar: its name.
    """

    path: pathlib.Path
    regions: pathlib.Path
    limits: Limits
    sidecar: str


@dataclasses.dataclass
class Report:
    """How the rows fared.

    Attributes:
        written: rows with regions.
        regions: the regions of these.
        with_entry: rows with an entry, of whatever use.
        seen: starts of all entries looked at.
        refused: entries that cannot be used.
        dropped: regions that were left out.
    """

    written: int = 0
    regions: int = 0
    with_entry: int = 0
    seen: set[int] = dataclasses.field(default_factory=set)
    refused: Findings = dataclasses.field(default_factory=Findings)
    dropped: Findings = dataclasses.field(default_factory=Findings)

    def merge(self, other: "Report") -> None:
        """Adds the rows of another shard."""
        self.written += other.written
        self.regions += other.regions
        self.with_entry += other.with_entry
        self.seen |= other.seen
        self.refused.merge(other.refused)
        self.dropped.merge(other.dropped)


def label_shard(job: Job, entries: Entries, folder: str, shard: int) -> Report:
    """Writes one shard of the sidecar into `folder`."""
    report = Report()
    store.write_shard(folder, job.sidecar, shard, _rows(job, entries, shard, report))
    return report


def _write_shards(job: Job, entries: Entries, folder: str, workers: int) -> Report:
    opened = store.Store.open(job.path)
    progress = Progress(job.sidecar, opened.num_rows)
    report = Report()
    for part in parallel.map_shards(
        functools.partial(label_shard, job, entries, folder),
        range(len(opened.shard_rows)),
        workers=workers,
        on_progress=progress.show,
    ):
        report.merge(part)
    progress.finish(opened.num_rows)
    return report


def _rows(job: Job, entries: Entries, shard: int, report: Report) -> Iterator[Mapping[str, Value]]:
    opened = store.Store.open(job.path)
    for row in range(opened.shard_rows[shard]):
        columns = opened.read(shard, row, ("height", "width"))
        (key,) = columns[store.KEY]
        name = key.decode(errors="surrogateescape")
        found = entries.find(name)
        report.seen.update(found)
        report.with_entry += bool(found)
        record = {store.KEY: key}
        try:
            if len(found) > 1:
                raise Rejected("several entries for one row", f"{len(found)} of them")
            if found:
                entry = entries.read(found[0])
                check_size(entry, (int(columns["height"][0]), int(columns["width"][0])))
                record |= keep_regions(entry, job.limits, report.dropped)
        except Rejected as rejected:
            report.refused.add(rejected.reason, f"{name}: {rejected.detail}")
        report.written += PHRASES.name in record
        report.regions += len(record.get(PHRASES.name, ()))
        yield record
        parallel.count_done(1)


def _check_any(job: Job, report: Report, entries: Entries) -> None:
    """Refuses a sidecar without a region, and one whose file does not fit the store."""
    if not report.seen:
        key = store.Store.open(job.path).read(0, 0, [])[store.KEY][0].decode(errors="replace")
        raise UserError(
            f"no entry belongs to a row: for the row {key} of {job.path} want the key "
            f"{row_name(key)}, with or without an ending; {job.regions} has "
            f"{entries.read(min(entries.starts)).key}"
        )
    refused = sum(report.refused.counts.values())
    if 2 * refused > report.with_entry:
        raise UserError(
            f"{refused:,} of {report.with_entry:,} entries were refused, nothing is written: "
            f"{_reasons(report.refused)}"
        )
    if not report.written:
        raise UserError(
            f"no region is left, nothing is written: {_reasons(report.dropped) or 'there is none'}"
        )


def _reasons(findings: Findings) -> str:
    return "; ".join(
        f"{count:,} {reason} ({findings.examples[reason][0]})"
        for reason, count in findings.counts.items()
    )


def _commit(job: Job, folder: str, report: Report) -> None:
    sidecars.clear(job.path, job.sidecar)
    sidecars.move_in(job.path, folder)
    provenance: dict[str, Any] = {
        "tool": "tools.data.regions",
        "regions": str(job.regions),
        **dataclasses.asdict(job.limits),
        "with_regions": report.written,
        "refused_by_reason": report.refused.counts,
        "dropped_by_reason": report.dropped.counts,
    }
    store.finish_sidecar(job.path, job.sidecar, [BOXES, PHRASES, SCORES], provenance)


def _summary(job: Job, report: Report, entries: Entries) -> str:
    opened = store.Store.open(job.path, (job.sidecar,))
    phrases = len(Vocabulary.of([opened], PHRASES.name))
    refused = sum(report.refused.counts.values())
    without = report.with_entry - report.written - refused
    lines = [
        f"{job.path}: sidecar {job.sidecar}, {report.regions:,} regions of {phrases:,} phrases",
        f"rows {opened.num_rows:,}: {report.written:,} with regions, {without:,} with an entry "
        f"that leaves none, {opened.num_rows - report.with_entry:,} without an entry, {refused:,} "
        "with an entry that was refused",
    ]
    for verb, findings in (("refused", report.refused), ("dropped", report.dropped)):
        for reason, count in findings.counts.items():
            lines.append(f"{verb}, {reason}: {count:,}")
            lines += [f"  {example}" for example in findings.examples[reason]]
    others = sorted({int(start) for start in entries.starts} - report.seen)
    shown = ", ".join(entries.read(start).key for start in others[:_SHOWN])
    more = ", …" if len(others) > _SHOWN else ""
    lines.append(f"entries of no row: {len(others):,}" + (f" ({shown}{more})" if others else ""))
    return "\n".join(lines)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.data.regions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", type=pathlib.Path, required=True)
    parser.add_argument(
        "--regions", type=pathlib.Path, required=True, help="JSON lines or COCO instances"
    )
    parser.add_argument(
        "--boxes", choices=("pixels", "fraction"), default="pixels", help="default: pixels"
    )
    parser.add_argument("--sidecar", default="regions_v1", help="default: regions_v1")
    parser.add_argument(
        "--min_side",
        type=float,
        default=0.02,
        help="least side of a clipped box, as a share of the image's (default: 0.02)",
    )
    parser.add_argument("--min_score", type=float, default=0.0, help="default: 0")
    parser.add_argument("--overwrite", action="store_true", help="replace the sidecar")
    parser.add_argument("--workers", type=int, default=parallel.available_cores())
    parsed = parser.parse_args(arguments)
    if not 0 <= parsed.min_side < 1 or parsed.workers < 1:
        parser.error("want 0 <= --min_side < 1 and --workers of at least 1")
    return parsed


@report_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parsed = _parse(arguments)
    job = Job(
        path=parsed.store,
        regions=parsed.regions,
        limits=Limits(parsed.boxes, parsed.min_side, parsed.min_score),
        sidecar=parsed.sidecar,
    )
    sidecars.check_new(job.path, job.sidecar, overwrite=parsed.overwrite)
    with tempfile.TemporaryDirectory(dir=job.path, prefix=f".{job.sidecar}-") as scratch:
        entries, passed_over = index_entries(job.regions, parsed.boxes, pathlib.Path(scratch))
        shards = pathlib.Path(scratch, "shards")
        report = _write_shards(job, entries, str(shards), parsed.workers)
        report.dropped.merge(passed_over)
        _check_any(job, report, entries)
        _commit(job, str(shards), report)
        print(_summary(job, report, entries))
    return 0


if __name__ == "__main__":
    sys.exit(main())
