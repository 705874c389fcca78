# SPDX-License-Identifier: Apache-2.0
"""Makes a store of image-text samples: `python -m tools.data.ingest --input SOURCE --output STORE`.

SOURCE is a folder or a glob pattern of webdataset tars (as img2dataset writes them), or of plain
images with optional captions. One tar becomes one shard, in the same order. Every input sample is
written, written without caption, or rejected for a reason; STORE/funnel.json has the sums and
STORE/funnel-*.jsonl a line a sample. The store is a function of the input and the settings alone,
whatever the number of workers; after a kill the same command goes on where it stopped.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import os
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
from tools.data import archives, curate, folders, funnel, parallel, sources, upstream
from tools.data.captions import choose_caption

_FIELDS = (IMAGE, CAPTION, Field(name="height", dtype="int32"), Field(name="width", dtype="int32"))
_PLAN = "ingest.json"
_SURVEY_IN_PARALLEL = 16  # parts; fewer are surveyed before the workers have started
_COUNT_EVERY = 16  # samples; spares the lock that workers share


@dataclasses.dataclass(frozen=True)
class Task:
    """One shard to make.

    Attributes:
        part: what it is made of.
        shard: its number.
        output: the store.
        limits: what is kept.
        prefix: put before every key, to make it unique in the store.
    """

    part: sources.Part
    shard: int
    output: pathlib.Path
    limits: curate.Limits
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
    def finished(self) -> bool:
        """Whether an earlier run made this shard; its funnel is the last thing written."""
        records = store.shard_path(self.output, store.BASE, self.shard)
        return records.exists() and self.funnel_path.exists()


@dataclasses.dataclass(frozen=True)
class Survey:
    """What the headers of one part tell: how many samples, and hashes of their keys."""

    samples: int
    key_hashes: np.ndarray


def survey_part(part: sources.Part) -> Survey:
    """Counts a part without reading an image."""
    parallel.count_done(1)
    if part.archive is None:
        return Survey(len(part.images), np.zeros(0, np.uint64))
    entries = archives.scan_archive(part.archive).entries
    keys = {entry.key.encode(errors="surrogateescape") for entry in entries if not entry.refusal}
    digests = b"".join(hashlib.blake2b(key, digest_size=8).digest() for key in keys)
    return Survey(len(entries), np.frombuffer(digests, np.uint64))


def ingest_shard(task: Task) -> funnel.ShardReport:
    """Makes one shard with its funnel, or reports on the one that is there."""
    archive = archives.scan_archive(task.part.archive) if task.part.archive else None
    if task.finished:
        lines = task.funnel_path.read_text().splitlines()
        verdicts = [funnel.Verdict(**json.loads(line)) for line in lines]
        parallel.count_done(len(verdicts))
    else:
        verdicts = []
        samples = (
            archives.read_samples(archive) if archive else folders.read_samples(task.part.images)
        )
        with warnings.catch_warnings(action="ignore"):  # Pillow's, over damaged metadata
            store.write_shard(task.output, store.BASE, task.shard, _rows(samples, task, verdicts))
        if archive:
            lost = upstream.lost_rows(archive.path, {entry.key for entry in archive.entries})
            funnel.write_lines(task.upstream_path, map(upstream.to_line, lost))
        funnel.write_lines(task.funnel_path, (verdict.to_line() for verdict in verdicts))
    lost_lines = task.upstream_path.read_text().splitlines() if archive else []
    return funnel.tally(
        task.part.name,
        verdicts,
        upstream.count_statuses(lost_lines),
        archive.broken if archive else "",
    )


def _rows(
    samples: Iterator[sources.Sample], task: Task, verdicts: list[funnel.Verdict]
) -> Iterator[dict[str, Any]]:
    """The records of the samples that are kept; a verdict on every sample goes to `verdicts`."""
    for number, sample in enumerate(samples, 1):
        key = task.prefix + sample.key
        try:
            if sample.refusal:
                raise curate.Rejected(sample.refusal)
            image = curate.curate(sample.image, task.limits)
        except curate.Rejected as rejected:
            verdicts.append(funnel.Verdict(key, funnel.REJECTED, str(rejected)))
        else:
            caption = choose_caption(sample.text, sample.metadata)
            outcome = funnel.WRITTEN if caption.text else funnel.WITHOUT_CAPTION
            verdicts.append(funnel.Verdict(key, outcome, "", image.changes + caption.changes))
            yield {
                "key": key.encode(errors="surrogateescape"),
                "image": image.data,
                "height": image.height,
                "width": image.width,
                **({"caption": caption.text} if caption.text else {}),
            }
        if number % _COUNT_EVERY == 0:
            parallel.count_done(_COUNT_EVERY)
    parallel.count_done(len(verdicts) % _COUNT_EVERY)


def find_parts(arguments: argparse.Namespace) -> list[sources.Part]:
    """The input as a list of shards to be."""
    paths = sources.find_files(arguments.input)
    if paths[0].suffix.lower() == ".tar":
        if arguments.captions:
            raise UserError("--captions goes with a folder of images; tars bring their captions")
        return sources.archive_parts(paths)
    root = sources.input_folder(arguments.input)
    images = folders.list_images(paths, root, arguments.captions)
    return sources.image_parts(images, arguments.rows_per_shard)


def ingest(arguments: argparse.Namespace) -> dict[str, Any]:
    """Makes the store and returns the summary of its funnel."""
    limits = curate.Limits(arguments.min_side, arguments.max_side, arguments.max_enlarge)
    output: pathlib.Path = arguments.output
    parts = find_parts(arguments)
    settings = {
        **dataclasses.asdict(limits),
        "jpeg": [curate.JPEG_QUALITY, curate.JPEG_SUBSAMPLING],
        "name": arguments.name or output.resolve().name,
        **({} if parts[0].archive else {"rows_per_shard": arguments.rows_per_shard}),
    }
    with _sole_writer(output):
        _check_plan(output, settings, parts)
        surveys = _survey(parts, arguments.workers)
        collide = _keys_collide(surveys)
        tasks = [
            Task(part, shard, output, limits, f"{part.name}/" if collide else "")
            for shard, part in enumerate(parts)
        ]
        progress = Progress("ingest", sum(survey.samples for survey in surveys))
        progress.skip(sum(s.samples for s, t in zip(surveys, tasks, strict=True) if t.finished))
        reports = list(
            parallel.map_shards(
                ingest_shard, tasks, workers=arguments.workers, on_progress=progress.show
            )
        )
        summary = funnel.summarise(reports)
        progress.finish(summary["read"])
        _commit(output, settings, reports, summary)
    return summary


def _survey(parts: Sequence[sources.Part], workers: int) -> list[Survey]:
    if len(parts) == 1:  # nothing to collide with
        return [survey_part(parts[0])]
    progress = Progress("survey", len(parts), unit="shards")
    return list(parallel.map_shards(survey_part, parts, workers=workers, on_progress=progress.show))


def _keys_collide(surveys: Sequence[Survey]) -> bool:
    """Whether two parts hold a sample of the same key."""
    hashes = np.concatenate([survey.key_hashes for survey in surveys])
    return len(np.unique(hashes)) < len(hashes)


@contextlib.contextmanager
def _sole_writer(output: pathlib.Path) -> Iterator[None]:
    """Holds the store against a second writer; the lock goes with the process."""
    output.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(output, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"another process is writing {output}: wait for it") from error
    else:
        yield
    finally:
        os.close(descriptor)


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
    if kept == 0:
        raise UserError(
            f"nothing was written: all {summary['read']:,} samples were rejected "
            f"({json.dumps(summary['rejected_by_reason'])}); see {output}/funnel-00000.jsonl"
        )
    provenance = {"tool": "tools.data.ingest", "settings": settings, "versions": versions}
    store.finish_store(output, settings["name"], _FIELDS, provenance)
    if store.Store.open(output).shard_rows != tuple(report.rows for report in reports):
        raise AssertionError(f"{output}: the shards do not hold what the funnel says")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.data.ingest", description=__doc__)
    parser.add_argument("--input", required=True, help="folder or glob of .tar or image files")
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
    parser.add_argument("--name", help="name of the store (default: that of its folder)")
    parser.add_argument("--workers", type=int, default=parallel.available_cores())
    parser.add_argument(
        "--allow_broken", action="store_true", help="exit 0 though a tar breaks off"
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
            f"{len(broken)} of the input tars break off; what came before is in {parsed.output}: "
            "mend the tars and ingest anew, or accept this with --allow_broken"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
