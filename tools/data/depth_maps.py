# SPDX-License-Identifier: Apache-2.0
"""Depth maps that you already have, from a model or a sensor, as a sidecar of a store.

    python -m tools.data.depth_maps --store stores/photos --maps maps --are disparity

Which map belongs to which row: `MAPS/cats/01.png` or `MAPS/cats/01.npy` to the row of key
`cats/01.jpg`, that is, to the key without the ending of an image. A store made from a folder of
images has as key the path of the image below the folder that all images share; one made from tars,
the name in the tar. With `--suffix _depth` the map is `MAPS/cats/01_depth.png`; the option may be
repeated, then a row takes the map of any of the suffixes. `--suffix .jpg` serves `01.jpg.png`.

A map is a gray PNG of 16 or 8 bits or a two-dimensional .npy, and has the aspect of the stored
image, which is upright. In --column depth (a label to train on) it becomes disparity, scaled from
its least to its greatest value; unknown pixels are filled from the nearest known one. In --column
metric_depth (truth to measure against) numbers stay as they are, 0 is unknown, and those that do
not fit uint16 are scaled so that the largest of the map is 65535.

Unknown is in depth: 0, less, or not finite; in disparity: not finite, and for --column metric_depth
0 and less too. (In a disparity to train on, 0 is the farthest: give the disparity of a stereo
camera, where 0 is a hole, as .npy with NaN there.) A row whose map cannot be used gets none, and
the summary says why.
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from input_pipeline import decode, store
from input_pipeline.example import Value
from mtv_jax.core.errors import UserError, report_user_errors
from mtv_jax.core.fields import DEPTH, Field
from mtv_jax.core.progress import Progress
from tools.data import parallel, sidecars
from tools.data.depth_values import FORMATS, Quantity, Rejected, read_map, to_label, to_truth
from tools.data.sources import IMAGE_SUFFIXES
from tools.data.verify import Findings

_SIDECARS = {"depth": "depth_v1", "metric_depth": "truth_v1"}  # by column
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Job:
    """What is made of which maps.

    Attributes:
        path: the store.
        maps: the folder of maps.
        suffixes: what may stand between a row's name and the ending of its map.
        are: what the maps hold, "depth" or "disparity".
        column: the column that is made, "depth" or "metric_depth".
        sidecar: its name.
        max_unknown: share of unknown pixels up to which they are filled.
    """

    path: pathlib.Path
    maps: pathlib.Path
    suffixes: tuple[str, ...]
    are: Quantity
    column: str
    sidecar: str
    max_unknown: float


@dataclasses.dataclass
class Report:
    """How the rows fared: maps written, names of all maps looked at, and those rejected."""

    written: int = 0
    seen: set[str] = dataclasses.field(default_factory=set)
    rejected: Findings = dataclasses.field(default_factory=Findings)

    def merge(self, other: "Report") -> None:
        """Adds the rows of another shard."""
        self.written += other.written
        self.seen |= other.seen
        self.rejected.merge(other.rejected)


def map_names(key: str, suffixes: Sequence[str]) -> list[str]:
    """The paths below the folder of maps that the map of row `key` may have."""
    stem, ending = os.path.splitext(key)
    name = stem if ending.lower() in IMAGE_SUFFIXES else key
    return [f"{name}{suffix}{ending}" for suffix in suffixes for ending in FORMATS]


def label_shard(job: Job, folder: str, shard: int) -> Report:
    """Writes one shard of the sidecar into `folder`."""
    report = Report()
    store.write_shard(folder, job.sidecar, shard, _rows(job, shard, report))
    return report


def _write_shards(job: Job, folder: str, workers: int) -> Report:
    opened = store.Store.open(job.path)
    progress = Progress(job.sidecar, opened.num_rows)
    report = Report()
    for part in parallel.map_shards(
        functools.partial(label_shard, job, folder),
        range(len(opened.shard_rows)),
        workers=workers,
        on_progress=progress.show,
    ):
        report.merge(part)
    progress.finish(opened.num_rows)
    return report


def _rows(job: Job, shard: int, report: Report) -> Iterator[Mapping[str, Value]]:
    opened = store.Store.open(job.path)
    for row in range(opened.shard_rows[shard]):
        columns = opened.read(shard, row, ("height", "width"))
        (key,) = columns[store.KEY]
        names = map_names(key.decode(errors="surrogateescape"), job.suffixes)
        found = [name for name in names if os.path.isfile(job.maps / name)]
        report.seen.update(found)
        record = {store.KEY: key}
        try:
            if len(found) > 1:
                raise Rejected("several maps for one row", " and ".join(found))
            if found:
                size = int(columns["height"][0]), int(columns["width"][0])
                record[job.column] = _encode(job, job.maps / found[0], size)
                report.written += 1
        except Rejected as rejected:
            report.rejected.add(rejected.reason, f"{found[0]}: {rejected.detail}")
        yield record
        parallel.count_done(1)


def _encode(job: Job, path: pathlib.Path, image_size: tuple[int, int]) -> bytes:
    values = read_map(path)
    if job.column == DEPTH.name:
        return decode.encode_png16(to_label(values, job.are, image_size, job.max_unknown))
    return decode.encode_png16(to_truth(values, image_size))


def _field(job: Job) -> Field:
    if job.column == DEPTH.name:
        return DEPTH
    sign = ", large = near" if job.are == "disparity" else ""
    return Field(
        name=job.column,
        shape="h w",
        dtype="uint16",
        geometry="raster",
        resample="nearest",
        codec="png16",
        unit=f"{job.are}{sign}, 0 = unknown; in units of the given map, or scaled per image",
    )


def _list_maps(folder: pathlib.Path) -> list[str]:
    """Paths below `folder`, sorted; UserError where there is none."""
    names = [
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, files in os.walk(folder, followlinks=True)
        for name in files
        if name.lower().endswith(FORMATS) and not name.startswith(".")
    ]
    if not names:
        raise UserError(f"--maps {folder} holds no {' or '.join(FORMATS)}: check the path")
    return sorted(names)


def _check_any(job: Job, report: Report, maps: Sequence[str]) -> None:
    """Refuses a sidecar without a map."""
    if not report.seen:
        key = store.Store.open(job.path).read(0, 0, [])[store.KEY][0].decode(errors="replace")
        wanted = " or ".join(map_names(key, job.suffixes))
        raise UserError(
            f"no map belongs to a row: for the row {key} of {job.path} want {wanted} below "
            f"{job.maps}, which has {maps[0]}: see --maps and --suffix"
        )
    if not report.written:
        reasons = "; ".join(
            f"{count:,} {reason} ({report.rejected.examples[reason][0]})"
            for reason, count in report.rejected.counts.items()
        )
        raise UserError(f"every map was rejected, nothing is written: {reasons}")


def _commit(job: Job, folder: str, report: Report) -> None:
    sidecars.clear(job.path, job.sidecar)
    sidecars.move_in(job.path, folder)
    provenance: dict[str, Any] = {
        "tool": "tools.data.depth_maps",
        "maps": str(job.maps),
        "suffixes": job.suffixes,
        "are": job.are,
        "max_unknown": job.max_unknown,
        "with_map": report.written,
        "rejected_by_reason": report.rejected.counts,
    }
    store.finish_sidecar(job.path, job.sidecar, [_field(job)], provenance)


def _summary(job: Job, report: Report, maps: Sequence[str]) -> str:
    rows = store.Store.open(job.path).num_rows
    rejected = sum(report.rejected.counts.values())
    lines = [
        f"{job.path}: sidecar {job.sidecar}, column {job.column}",
        f"rows {rows:,}: {report.written:,} with map, {rows - report.written - rejected:,} "
        f"without map, {rejected:,} with a map that was rejected",
    ]
    for reason, count in report.rejected.counts.items():
        lines.append(f"rejected, {reason}: {count:,}")
        lines += [f"  {example}" for example in report.rejected.examples[reason]]
    others = [name for name in maps if name not in report.seen]
    shown = ", ".join(others[:_SHOWN]) + (", …" if len(others) > _SHOWN else "")
    lines.append(f"maps of no row: {len(others):,}" + (f" ({shown})" if others else ""))
    return "\n".join(lines)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.data.depth_maps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", type=pathlib.Path, required=True)
    parser.add_argument("--maps", type=pathlib.Path, required=True, help="folder of the maps")
    parser.add_argument(
        "--are", choices=("depth", "disparity"), required=True, help="disparity: large = near"
    )
    parser.add_argument(
        "--suffix", action="append", help="between name and ending of a map; may be repeated"
    )
    parser.add_argument("--column", choices=tuple(_SIDECARS), default="depth")
    parser.add_argument("--sidecar", help="default: depth_v1, for metric_depth truth_v1")
    parser.add_argument(
        "--max_unknown",
        type=float,
        default=0.05,
        help="share of pixels that may be filled; for --column depth (default: 0.05)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the sidecar")
    parser.add_argument("--workers", type=int, default=parallel.available_cores())
    parsed = parser.parse_args(arguments)
    if not 0 <= parsed.max_unknown < 1 or parsed.workers < 1:
        parser.error("want 0 <= --max_unknown < 1 and --workers of at least 1")
    return parsed


@report_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parsed = _parse(arguments)
    job = Job(
        path=parsed.store,
        maps=parsed.maps,
        suffixes=tuple(dict.fromkeys(parsed.suffix or [""])),
        are=parsed.are,
        column=parsed.column,
        sidecar=parsed.sidecar or _SIDECARS[parsed.column],
        max_unknown=parsed.max_unknown,
    )
    sidecars.check_new(job.path, job.sidecar, overwrite=parsed.overwrite)
    maps = _list_maps(job.maps)
    with tempfile.TemporaryDirectory(dir=job.path, prefix=f".{job.sidecar}-") as scratch:
        report = _write_shards(job, scratch, parsed.workers)
        _check_any(job, report, maps)
        _commit(job, scratch, report)
    print(_summary(job, report, maps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
