# SPDX-License-Identifier: Apache-2.0
"""Small line charts as inline SVG: no library, no network, sharp at any size."""

import dataclasses
import html
import math
from collections.abc import Sequence

import numpy as np

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 26, 22
_MOST_POINTS = 400
_FEW_POINTS = 12  # few enough to mark each


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart.

    Attributes:
        label: its entry in the legend.
        points: (x, y), x ascending.
        color: any CSS colour.
        dashed: for reference levels.
    """

    label: str
    points: Points
    color: str = "#1f5fa8"
    dashed: bool = False


def chart(title: str, lines: Sequence[Line]) -> str:
    """An `<svg>` of the lines over common axes; x starts at 0."""
    lines = [dataclasses.replace(line, points=thin(line.points)) for line in lines if line.points]
    right = max(x for line in lines for x, _ in line.points)
    ys = [y for line in lines for _, y in line.points]
    x_axis = _Axis(0, max(right, 1), _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis(min(ys), max(ys), _HEIGHT - _BOTTOM, _TOP)
    parts = [f'<text class="title" x="{_LEFT}" y="14">{html.escape(title)}</text>']
    for tick in y_axis.ticks:
        y = y_axis.place(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="y" x="{_LEFT - 5}" y="{y + 3.5:.1f}">{tick:.4g}</text>')
    for tick in x_axis.ticks:
        parts.append(
            f'<text class="x" x="{x_axis.place(tick)}" y="{_HEIGHT - 6}">{_short(tick)}</text>'
        )
    parts += [_draw(line, x_axis, y_axis) for line in lines]
    if len(lines) > 1:
        parts += [_legend(number, line) for number, line in enumerate(lines)]
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'


def thin(points: Points) -> Points:
    """At most a few hundred points: means over equal runs, the last point as it is."""
    if len(points) <= _MOST_POINTS:
        return points
    runs = np.array_split(np.asarray(points[:-1], float), _MOST_POINTS - 1)
    return [*((float(x), float(y)) for x, y in (run.mean(axis=0) for run in runs)), points[-1]]


class _Axis:
    """Maps a range of values, widened to round ticks, onto a range of pixels."""

    def __init__(self, low: float, high: float, start: float, end: float):
        span = (high - low) or abs(high) or 1.0
        power = 10 ** math.floor(math.log10(span / 4))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= span / 4)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        self.ticks = [number * step for number in range(first, max(last, first + 1) + 1)]
        self._start, self._end = start, end

    def place(self, value: float) -> float:
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return round(self._start + share * (self._end - self._start), 1)


def _draw(line: Line, x_axis: _Axis, y_axis: _Axis) -> str:
    places = [(x_axis.place(x), y_axis.place(y)) for x, y in line.points]
    path = " ".join(f"{x:g},{y:g}" for x, y in places)
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    drawn = f'<polyline points="{path}" stroke="{line.color}"{dash}/>'
    if len(places) <= _FEW_POINTS and not line.dashed:
        marks = (f'<circle cx="{x:g}" cy="{y:g}" r="2.5" fill="{line.color}"/>' for x, y in places)
        drawn += "".join(marks)
    return drawn


def _legend(number: int, line: Line) -> str:
    y = _TOP + 12 + 14 * number
    at = f'x="{_WIDTH - _RIGHT}" y="{y}" style="fill:{line.color}"'
    return f'<text class="legend" {at}>{html.escape(line.label)}</text>'


def _short(value: float) -> str:
    """1500 as 1.5k, so that tick labels stay narrow."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
