# SPDX-License-Identifier: Apache-2.0
"""Makes a store of image-text samples: `python -m tools.data.ingest --input SOURCE --output STORE`.

SOURCE is a folder or a glob pattern: webdataset tars or parquet files (as img2dataset writes them),
a Hugging Face data set (parquet files, or the folder of save_to_disk), a data set that TFDS
prepared, or plain images with optional captions. One file becomes one shard, in the same order.
Every input sample is written, written without caption, or rejected for a reason; STORE/funnel.json
has the sums and STORE/funnel-*.jsonl a line a sample. The store is a function of the input and the
settings alone, whatever the number of workers; after a kill the same command goes on where it
stopped.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import pathlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from input_pipeline import files, store
from mtv_jax.core.errors import UserError, report_user_errors
from mtv_jax.core.fields import CAPTION, IMAGE, Field
from mtv_jax.core.progress import Progress
from tools.data import curate, funnel, inputs, orientation, parallel, scores, sources, upstream
from tools.data.captions import choose_caption, read_metadata

_FIELDS = (IMAGE, CAPTION, Field(name="height", dtype="int32"), Field(name="width", dtype="int32"))
_TAKEN = (store.KEY, *(field.name for field in _FIELDS))
_PLAN = "ingest.json"
_COUNT_EVERY = 16  # samples; spares the lock that workers share


@dataclasses.dataclass(frozen=True)
class Task:
    """One shard to make.

    Attributes:
        part: what it is made of.
        shard: its number.
        output: the store.
        limits: what is kept.
        keep_columns: columns of scores that are kept.
        prefix: put before every key, to make it unique in the store.
    """

    part: sources.Part
    shard: int
    output: pathlib.Path
    limits: curate.Limits
    keep_columns: tuple[str, ...]
    prefix: str = ""

    @property
    def funnel_path(self) -> pathlib.Path:
        """A line for every sample that came in."""
        return self.output / f"funnel-{self.shard:05d}.jsonl"

    @property
    def upstream_path(self) -> pathlib.Path:
        """A line for every row that never came."""
        return self.output / f"upstream-{self.shard:05d}.jsonl"

    @property
    def report_path(self) -> pathlib.Path:
        """The sums of this shard, written last."""
        return self.output / f"sums-{self.shard:05d}.jsonl"

    @property
    def finished(self) -> bool:
        """Whether an earlier run made this shard."""
        records = store.shard_path(self.output, store.BASE, self.shard)
        return all(path.exists() for path in (records, self.funnel_path, self.report_path))


def survey_part(part: sources.Part) -> sources.Survey:
    """Counts a part without reading an image."""
    parallel.count_done(1)
    return part.survey()


def ingest_shard(task: Task) -> funnel.ShardReport:
    """Makes one shard with its funnel, or reports on the one that is there."""
    if task.finished:
        report = funnel.ShardReport(**json.loads(task.report_path.read_bytes()))
        parallel.count_done(report.read)
        return report
    notes = funnel.Tally()
    with warnings.catch_warnings(action="ignore"):  # Pillow's, over damaged metadata
        store.write_shard(task.output, store.BASE, task.shard, _rows(task, notes))
    report = notes.report(task.part.name)
    funnel.write_lines(task.upstream_path, (row.to_line() for row in notes.lost))
    funnel.write_lines(task.funnel_path, (verdict.to_line() for verdict in notes.verdicts))
    funnel.write_lines(task.report_path, [report.to_line()])
    return report


def _rows(task: Task, notes: funnel.Tally) -> Iterator[dict[str, Any]]:
    """The records of the samples that are kept; what became of each sample goes to `notes`."""
    for sample in _samples(task.part, notes):
        key = task.prefix + sample.key
        try:
            if sample.refusal:
                raise curate.Rejected(sample.refusal)
            values = sample.values or read_metadata(sample.metadata)
            turned = orientation.from_metadata(values)
            image = curate.curate(sample.image, task.limits, orientation=turned)
        except curate.Rejected as rejected:
            notes.verdicts.append(funnel.Verdict(key, funnel.REJECTED, str(rejected)))
        else:
            caption = choose_caption(sample.text, sample.metadata)
            outcome = funnel.WRITTEN if caption.text else funnel.WITHOUT_CAPTION
            notes.verdicts.append(funnel.Verdict(key, outcome, "", image.changes + caption.changes))
            kept = scores.kept(values, task.keep_columns)
            notes.columns.update(kept.keys())
            yield {
                "key": key.encode(errors="surrogateescape"),
                "image": image.data,
                "height": image.height,
                "width": image.width,
                **({"caption": caption.text} if caption.text else {}),
                **kept,
            }
        if len(notes.verdicts) % _COUNT_EVERY == 0:
            parallel.count_done(_COUNT_EVERY)
    parallel.count_done(len(notes.verdicts) % _COUNT_EVERY)


def _samples(part: sources.Part, notes: funnel.Tally) -> Iterator[sources.Sample]:
    """The samples of a part; its lost rows and its break go to `notes`."""
    try:
        for found in part.samples():
            if isinstance(found, upstream.LostRow):
                notes.lost.append(found)
            else:
                yield found
    except sources.BrokenPart as broken:
        notes.broken = str(broken)


def ingest(arguments: argparse.Namespace) -> dict[str, Any]:
    """Makes the store and returns the summary of its funnel."""
    limits = curate.Limits(arguments.min_side, arguments.max_side, arguments.max_enlarge)
    output: pathlib.Path = arguments.output
    keep_columns = scores.names_to_keep(arguments.keep_columns, _TAKEN)
    found = inputs.find(arguments.input, _options(arguments, keep_columns))
    settings = {
        **dataclasses.asdict(limits),
        "jpeg": [curate.JPEG_QUALITY, curate.JPEG_SUBSAMPLING],
        "name": arguments.name or output.resolve().name,
        "keep_columns": list(keep_columns),
        **found.settings,
    }
    parts = found.parts
    with files.sole_writer(output):
        _check_plan(output, settings, parts)
        surveys = _survey(parts, arguments.workers)
        collide = _keys_collide(surveys)
        tasks = [
            Task(part, shard, output, limits, keep_columns, f"{part.name}/" if collide else "")
            for shard, part in enumerate(parts)
        ]
        progress = Progress("ingest", sum(survey.samples for survey in surveys))
        progress.skip(sum(s.samples for s, t in zip(surveys, tasks, strict=True) if t.finished))
        reports = list(
            parallel.map_shards(
                ingest_shard, tasks, workers=arguments.workers, on_progress=progress.show
            )
        )
        asked = [name for name in keep_columns if name not in scores.DEFAULT]
        summary = funnel.summarise(reports, asked)
        progress.finish(summary["read"])
        _commit(output, settings, reports, summary)
    return summary


def _options(arguments: argparse.Namespace, keep_columns: tuple[str, ...]) -> sources.Options:
    names = ("captions", "rows_per_shard", "caption_column", "split")
    said = {name: getattr(arguments, name) for name in names}
    return sources.Options(**said, keep_columns=(*keep_columns, orientation.COLUMN))


def _survey(parts: Sequence[sources.Part], workers: int) -> list[sources.Survey]:
    if len(parts) == 1:  # nothing to collide with
        return [survey_part(parts[0])]
    progress = Progress("survey", len(parts), unit="shards")
    return list(parallel.map_shards(survey_part, parts, workers=workers, on_progress=progress.show))


def _keys_collide(surveys: Sequence[sources.Survey]) -> bool:
    """Whether two parts hold a sample of the same key."""
    hashes = np.concatenate([survey.key_hashes for survey in surveys])
    return len(np.unique(hashes)) < len(hashes)


def _check_plan(
    output: pathlib.Path, settings: dict[str, Any], parts: Sequence[sources.Part]
) -> None:
    """Writes down what this store is made of, or refuses to mix it with something else."""
    shards = [{"source": part.name, "fingerprint": part.fingerprint()} for part in parts]
    plan = {"settings": settings, "shards": shards}
    path = output / _PLAN
    if not path.exists():
        if any(output.glob("*.tfrecord")):
            raise UserError(f"{output} holds a store that ingest did not make: choose another")
        files.write_atomically(path, json.dumps(plan, indent=1).encode() + b"\n")
        return
    try:
        earlier = json.loads(path.read_bytes())
        changed = [key for key in settings if settings[key] != earlier["settings"].get(key)]
        if shards != earlier["shards"] and "rows_per_shard" not in changed:
            changed.append("input")
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error!r}): delete {output}") from error
    if changed:
        raise UserError(
            f"{output} was begun with another {', '.join(changed)} (see {path}): choose another "
            "--output, or delete that folder"
        )


def _commit(
    output: pathlib.Path,
    settings: dict[str, Any],
    reports: Sequence[funnel.ShardReport],
    summary: dict[str, Any],
) -> None:
    kept = summary[funnel.WRITTEN] + summary[funnel.WITHOUT_CAPTION]
    if summary["read"] != kept + summary[funnel.REJECTED]:
        raise AssertionError(f"the funnel leaks: {summary}")
    versions = {
        package: importlib.metadata.version(package)
        for package in ("numpy", "pillow", "simplejpeg")
    }
    content = {
        **summary,
        "settings": settings,
        "versions": versions,
        "shards": [dataclasses.asdict(report) for report in reports],
    }
    text = json.dumps(content, indent=1, ensure_ascii=True) + "\n"
    files.write_atomically(output / "funnel.json", text.encode())
    if summary["read"] == 0:
        raise UserError("nothing was written: the input holds no samples")
    if kept == 0:
        raise UserError(
            f"nothing was written: all {summary['read']:,} samples were rejected "
            f"({json.dumps(summary['rejected_by_reason'])}); see {output}/funnel-00000.jsonl"
        )
    provenance = {"tool": "tools.data.ingest", "settings": settings, "versions": versions}
    found = [name for name in settings["keep_columns"] if summary["columns"].get(name)]
    fields = (*_FIELDS, *scores.fields(found))
    store.finish_store(output, settings["name"], fields, provenance)
    if store.Store.open(output).shard_rows != tuple(report.rows for report in reports):
        raise AssertionError(f"{output}: the shards do not hold what the funnel says")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.data.ingest", description=__doc__)
    parser.add_argument("--input", required=True, help="folder, file or glob pattern; see above")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="the store to make")
    parser.add_argument("--min_side", type=int, default=224, help="least short side stored")
    parser.add_argument("--max_side", type=int, default=1024, help="greatest long side stored")
    parser.add_argument(
        "--max_enlarge",
        type=float,
        default=5.0,
        help="enlarge a smaller image to --min_side by at most this factor; 1 rejects it",
    )
    parser.add_argument(
        "--captions", type=pathlib.Path, help="CSV or TSV of captions for a folder of images"
    )
    parser.add_argument("--rows_per_shard", type=int, default=1000, help="for a folder of images")
    parser.add_argument(
        "--caption_column", help="of a table or a TFDS data set (default: caption, text, title)"
    )
    parser.add_argument("--split", help="of a Hugging Face or TFDS data set (default: train)")
    parser.add_argument(
        "--keep_columns",
        default="",
        help="numbers in the metadata to keep, parted by commas, beside "
        + ", ".join(scores.DEFAULT),
    )
    parser.add_argument("--name", help="name of the store (default: that of its folder)")
    parser.add_argument("--workers", type=int, default=parallel.available_cores())
    parser.add_argument(
        "--allow_broken", action="store_true", help="exit 0 though a file breaks off"
    )
    parsed = parser.parse_args(arguments)
    if not 1 <= parsed.min_side <= parsed.max_side:
        parser.error("want 1 <= --min_side <= --max_side")
    if not parsed.max_enlarge >= 1 or parsed.rows_per_shard < 1 or parsed.workers < 1:
        parser.error("--max_enlarge, --rows_per_shard and --workers are at least 1")
    return parsed


@report_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status is 0 only when every input could be read to its end."""
    parsed = _parse(arguments)
    try:
        summary = ingest(parsed)
    except OSError as error:
        raise UserError(f"{error.filename or parsed.output}: {error.strerror}") from error
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(funnel.table(summary))
    if not summary[funnel.WRITTEN]:
        print("no image has a caption: train on what needs none (tasks=ssl, tasks=depth)")
    broken = summary["broken_archives"]
    for source, where in broken.items():
        print(f"{source}: {where}", file=sys.stderr)
    if broken and not parsed.allow_broken:
        raise UserError(
            f"{len(broken)} of the input files are damaged; what could be read is in "
            f"{parsed.output}: mend them and ingest anew, or accept this with --allow_broken"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
