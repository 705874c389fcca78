# SPDX-License-Identifier: Apache-2.0
"""The progress line of long work: done, rate and time left, on stderr."""

import sys
import time


class Progress:
    """Prints at most once a second to a terminal and once in ten seconds to a log.

    Args:
        label: what is done.
        total: how much of it.
        unit: of what is counted.
        devices: that share the work; of several, the rate of one is told too.
    """

    def __init__(self, label: str, total: int, *, unit: str = "samples", devices: int = 1):
        self._label, self._total, self._unit, self._devices = label, total, unit, devices
        self._start = self._shown = time.monotonic()
        self._first = 0
        self._live = sys.stderr.isatty()

    def skip(self, done: int) -> None:
        """Counts work that an earlier run did: it says nothing about the rate."""
        self._first = done

    def show(self, done: int) -> None:
        """Reports that `done` of the total are done."""
        now = time.monotonic()
        if now - self._shown >= (1 if self._live else 10):
            self._shown = now
            self._print(done, now)

    def finish(self, done: int) -> None:
        """Prints the last line."""
        self._print(done, time.monotonic())
        if self._live:
            print(file=sys.stderr)

    def _print(self, done: int, now: float) -> None:
        rate = (done - self._first) / max(now - self._start, 1e-6)
        remaining = self._total - done
        left = remaining / rate if rate > 0 else float("inf") if remaining else 0
        share = 100 * done / max(self._total, 1)
        each = f" ({rate / self._devices:,.1f}/s a device)" if self._devices > 1 else ""
        line = (
            f"{self._label}: {done:,}/{self._total:,} {self._unit} ({share:.0f} %), "
            f"{rate:,.0f}/s{each}, {_clock(now - self._start)} spent, {_clock(left)} left"
        )
        end = "\r" if self._live else "\n"
        print(f"{line:<79}", end=end, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
