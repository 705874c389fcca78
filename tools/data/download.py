# SPDX-License-Identifier: Apache-2.0
"""One run of img2dataset over lists of images: its settings, its end, and what to expect meanwhile.

img2dataset is a program of its own, with its own environment. It writes a tar, a parquet and a
`_stats.json` a shard; the last is what is watched.
"""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from input_pipeline import files
from mtv_jax.core.errors import UserError
from tools.data import fetch_reasons, metadata

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 5.0
STATS = "_stats.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the images are to be; another value makes another data set.

    Attributes:
        columns: of the lists.
        shard_rows: rows of a shard, downloaded or not.
        min_side: least short side downloaded, in pixels.
        max_side: a longer long side is made this; 0 keeps the files as they come.
        max_aspect: greatest ratio of the sides.
    """

    columns: tuple[str, ...]
    shard_rows: int
    min_side: int
    max_side: int
    max_aspect: float

    def flags(self) -> dict[str, object]:
        """As flags of img2dataset."""
        columns = [name for name in self.columns if name not in ("url", "text", metadata.HASH)]
        boxes = metadata.BOXES in columns
        flags = {
            "input_format": "parquet",
            "output_format": "webdataset",
            "url_col": "url",
            "number_sample_per_shard": self.shard_rows,
            "image_size": self.max_side or 1,
            "resize_mode": "keep_ratio_largest" if self.max_side else "no",
            "resize_only_if_bigger": True,
            # It keeps the bytes of an image that is not resized even where it has blurred faces.
            "skip_reencode": not boxes,
            "encode_quality": 95,
            "min_image_size": self.min_side,
            "max_aspect_ratio": self.max_aspect,
            "compute_hash": "sha256",
            "save_additional_columns": [name for name in columns if name != metadata.BOXES] or None,
            "bbox_col": metadata.BOXES if boxes else None,
            "caption_col": "text" if "text" in self.columns else None,
            "verify_hash": [metadata.HASH, "sha256"] if metadata.HASH in self.columns else None,
        }
        return {name: value for name, value in flags.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Effort:
    """How hard to try; may change between runs.

    Attributes:
        program: the words that start img2dataset.
        processes: one works on one shard.
        threads: downloads at a time, of each process.
        timeout: seconds for one download.
        retries: at once, of a failed download.
        min_yield: a smaller share of images that arrive ends the run.
    """

    program: tuple[str, ...]
    processes: int
    threads: int
    timeout: int
    retries: int
    min_yield: float

    def flags(self) -> dict[str, object]:
        """As flags of img2dataset."""
        return {
            "processes_count": self.processes,
            "thread_count": self.threads,
            "timeout": self.timeout,
            "retries": self.retries,
        }


@dataclasses.dataclass(frozen=True)
class Tally:
    """The sums over finished shards: rows, images that arrived, seconds of work, failures."""

    shards: int
    rows: int
    arrived: int
    seconds: float
    size: int
    reasons: collections.Counter[str]

    @property
    def share(self) -> float:
        """Of the rows that arrived."""
        return self.arrived / max(self.rows, 1)


def find_program(command: str) -> tuple[str, ...]:
    """The words of `--img2dataset`; a UserError where the first is no program."""
    words = tuple(shlex.split(command))
    if not words or not shutil.which(words[0]):
        raise UserError(
            f"no program {command!r}: install img2dataset apart from this environment (`uv tool "
            "install --python 3.12 img2dataset`, or the same with pipx), or say where it is "
            "(--img2dataset 'uvx --python 3.12 img2dataset')"
        )
    return words


def command_line(folder: pathlib.Path, settings: Settings, effort: Effort) -> list[str]:
    """What is run; the lists lie in `folder`/fetch/urls."""
    paths = {"url_list": folder / "fetch" / "urls", "output_folder": folder}
    flags = {
        **{name: str(path.absolute()) for name, path in paths.items()},
        **settings.flags(),
        **effort.flags(),
    }
    return [*effort.program, *(f"--{name}={_as_flag(value)}" for name, value in flags.items())]


def download(folder: pathlib.Path, settings: Settings, effort: Effort, num_rows: int) -> Tally:
    """Runs img2dataset over the lists of `folder` until its end.

    Args:
        folder: `fetch/urls` holds the lists; shards that are finished are not fetched again.
        settings: what the images are to be.
        effort: how hard to try.
        num_rows: of the lists.

    Returns:
        The sums over all shards.

    Raises:
        UserError: it failed, did not finish every shard, too few images arrive, or another run is
            at work in `folder`.
    """
    num_shards = -(-num_rows // settings.shard_rows)
    before = set(finished(folder))
    if len(before) >= num_shards:
        return tally(folder)
    log = folder / "fetch" / "log.txt"
    with (
        files.sole_writer(folder) as lock,
        open(log, "ab") as output,
        _running(command_line(folder, settings, effort), output, lock) as run,
    ):
        report = _Report(num_shards, num_rows, effort.processes, len(before))
        while run.poll() is None:
            time.sleep(_POLL_SECONDS)
            seen = tally(folder, before)
            report.show(seen, folder)
            if seen.rows >= settings.shard_rows:  # a short last shard alone says little
                _check_yield(seen, effort.min_yield)
    total = tally(folder)
    if run.returncode or total.shards < num_shards:
        raise UserError(
            f"img2dataset ended with {total.shards:,} of {num_shards:,} shards (status "
            f"{run.returncode}); see {log}, and give the same command again to go on: "
            f"{_last_line(log)}"
        )
    return total


def finished(folder: pathlib.Path) -> list[str]:
    """The names of finished shards."""
    return sorted(path.name.removesuffix(STATS) for path in folder.glob(f"*{STATS}"))


def tally(folder: pathlib.Path, without: set[str] | frozenset[str] = frozenset()) -> Tally:
    """The sums over the finished shards of `folder`, but for those of an earlier run."""
    rows = arrived = size = shards = 0
    seconds, reasons = 0.0, collections.Counter[str]()
    for name in finished(folder):
        if name in without:
            continue
        try:
            stats = json.loads((folder / f"{name}{STATS}").read_bytes())
            size += (folder / f"{name}.tar").stat().st_size
        except (ValueError, FileNotFoundError):  # being written
            continue
        shards, rows = shards + 1, rows + stats["count"]
        arrived, seconds = arrived + stats["successes"], seconds + stats["duration"]
        reasons += fetch_reasons.count_reasons(stats["status_dict"])
    return Tally(shards, rows, arrived, seconds, size, reasons)


def forecast(seen: Tally, num_rows: int, left: int, processes: int) -> str:
    """What the finished shards say of the whole.

    Args:
        seen: of this run.
        num_rows: of the whole.
        left: shards that are not finished.
        processes: shards in work at a time.
    """
    rate = seen.rows / max(seen.seconds, 1e-6) * min(processes, left + seen.shards)
    hours = left * (seen.rows / seen.shards) / rate / 3600
    whole = seen.size / max(seen.rows, 1) * num_rows / 1e9
    return (
        f"{100 * seen.share:.0f} % arrive, {rate:,.0f} addresses/s, {hours:.1f} h left, "
        f"{seen.arrived / max(seen.rows, 1) * num_rows:,.0f} images and {whole:,.1f} GB in all"
    )


class _Report:
    """Prints a line when a shard ends, and now and then while none does."""

    def __init__(self, num_shards: int, num_rows: int, processes: int, before: int):
        self._shards, self._rows, self._processes = num_shards, num_rows, processes
        self._before, self._done, self._warned = before, 0, False
        self._start = self._shown = time.monotonic()

    def show(self, seen: Tally, folder: pathlib.Path) -> None:
        now = time.monotonic()
        done = self._before + seen.shards
        if seen.shards == self._done and now - self._shown < 30:
            return
        self._shown, self._done = now, seen.shards
        line = f"fetch: {done:,}/{self._shards:,} shards, {(now - self._start) / 60:.0f} min"
        if seen.shards:
            line += f": {forecast(seen, self._rows, self._shards - done, self._processes)}"
            self._warn_of_space(seen, folder)
        print(line, flush=True)

    def _warn_of_space(self, seen: Tally, folder: pathlib.Path) -> None:
        left = self._rows - seen.rows
        needed, free = seen.size / max(seen.rows, 1) * left, shutil.disk_usage(folder).free
        if needed > free and not self._warned:
            self._warned = True
            print(f"warning: {needed / 1e9:,.0f} GB to come, {free / 1e9:,.0f} GB free in {folder}")


@contextlib.contextmanager
def _running(command: Sequence[str], output: IO[bytes], lock: int) -> Iterator[subprocess.Popen]:
    """The program in a group of processes that ends with the block; it holds the lock as well."""
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}  # it would ask the net
    run = subprocess.Popen(
        command,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,
        pass_fds=[lock],  # it outlives a killed parent
    )
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield run
    finally:
        signal.signal(signal.SIGTERM, before)
        _end(run)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _end(run: subprocess.Popen) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(_GRACE_SECONDS)


def _check_yield(seen: Tally, least: float) -> None:
    if seen.share < least:
        reasons = fetch_reasons.top(seen.reasons, seen.rows)
        hint = "; a caching resolver on this machine helps" if "DNS" in reasons else ""
        raise UserError(
            f"only {100 * seen.share:.0f} % of {seen.rows:,} images arrived, fewer than "
            f"--min_yield {least:g}: {reasons}{hint}; what came so far is kept"
        )


def _as_flag(value: object) -> str:
    return json.dumps(value) if isinstance(value, list) else str(value)


def _last_line(log: pathlib.Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "it printed nothing"


def describe(settings: Mapping[str, Any]) -> Settings:
    """The settings out of a plan."""
    return Settings(**{**settings, "columns": tuple(settings["columns"])})
