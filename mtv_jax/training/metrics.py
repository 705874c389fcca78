# SPDX-License-Identifier: Apache-2.0
"""Where numbers go: metrics.jsonl (the source of truth), TensorBoard, the progress line."""

import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping

import numpy as np
import tensorboardX


class MetricWriter:
    """Appends scalars to `metrics.jsonl` and `tb/`. Only process 0 has one.

    On resume everything after the restored step is dropped, so a killed run's files equal those of
    a run never killed.
    """

    def __init__(self, workdir: pathlib.Path, first_step: int):
        self._path = workdir / "metrics.jsonl"
        truncate_after(self._path, first_step)
        self._file = self._path.open("a")
        self._board = tensorboardX.SummaryWriter(str(workdir / "tb"), purge_step=first_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line, and one point per curve; a number that is not finite is written as null."""
        clean = {k: float(v) if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **clean}) + "\n")
        self._file.flush()
        for key, value in clean.items():
            if value is not None:
                self._board.add_scalar(key, value, step)

    def close(self) -> None:
        """Flushes both."""
        self._file.close()
        self._board.close()


def truncate_after(path: pathlib.Path, step: int) -> None:
    """Drops lines of later steps, and a last line that a kill cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row["step"] <= step:
            kept.append(line + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)


class Chronometer:
    """Rates since the last reading: images per second, share of time waiting for data."""

    def __init__(self) -> None:
        self._restart()

    def add(self, *, images: int, waited: float) -> None:
        """One step."""
        self._images += images
        self._waited += waited

    def read(self) -> dict[str, float]:
        """Rates of the interval, which ends here."""
        elapsed = max(time.perf_counter() - self._start, 1e-9)
        rates = {"images_per_s": self._images / elapsed, "data_wait": self._waited / elapsed}
        self._restart()
        return rates

    def _restart(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._images = 0


class ProgressLine:
    """One line per log interval: step, share done, ETA, rate, data wait, losses."""

    def __init__(self, total_steps: int):
        self._total = total_steps
        self._first: tuple[int, float] | None = None  # step and time; all has started up

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Prints the line on stdout."""
        now = time.perf_counter()
        self._first = self._first or (step, now)
        taken = step - self._first[0]
        left = (now - self._first[1]) / taken * (self._total - step) if taken else None
        eta = "unknown" if left is None else format_seconds(left)
        losses = [f"{k} {values[k]:.4g}" for k in values if k == "loss" or k.endswith("/loss")]
        print(
            f"step {step}/{self._total} ({100 * step / self._total:.0f} %)  "
            f"eta {eta}  {values['images_per_s']:.0f} img/s  "
            f"data wait {100 * values['data_wait']:.0f} %  " + "  ".join(losses),
            flush=True,
        )
        if taken and values["data_wait"] > 0.3:  # the first batch is always waited for
            print(
                f"  waiting for data {100 * values['data_wait']:.0f} % of the time: raise "
                "--config.input.workers",
                file=sys.stderr,
            )


def format_seconds(seconds: float) -> str:
    """1h02m, 3m20s, 12s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def mean_of(rows: list[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Mean of each metric over the steps of an interval that had an effect, if any had.

    Some metrics are not of every step; their mean is over the steps that have them.
    """
    kept = [row for row in rows if not row["skipped"]] or rows
    keys = dict.fromkeys(key for row in kept for key in row)
    means = {key: float(np.mean([row[key] for row in kept if key in row])) for key in keys}
    return {**means, "skipped": float(np.mean([row["skipped"] for row in rows]))}
