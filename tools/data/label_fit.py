# SPDX-License-Identifier: Apache-2.0
"""Which reading of labels fits their pictures best, over all rows of a sample.

For every mistake of `label_readings` the labels are read as if it had been made, and the evidence
of each row is compared with that of the labels as they are. A mistake is found where its reading
fits better by more than `LEAST_Z` standard errors and by a quarter, and fits at all by as many.
"""

import functools
from typing import NamedTuple

import numpy as np

from tools.data import label_evidence as evidence
from tools.data.label_readings import HABITS, MISTAKES, STILL, Reading
from tools.data.label_sample import Column, Labels, Sample

LEAST_ROWS = 100
LEAST_Z = 5.0
_LEAST_RATIO = 1.25  # networks shift what they see a little, untrained ones more than others
_SQUARE = 1.02  # up to this aspect
_SHAPES = {"tall": -1, "wide": 1}


class Fault(NamedTuple):
    """A mistake that was found: its kind, and where with the numbers and a remedy."""

    kind: str
    where: str


class Pictures:
    """The pictures of a sample as evidence needs them; `shape` is -1 tall, 0 square, 1 wide."""

    def __init__(self, sample: Sample):
        self.rows = np.array(sample.rows)
        self.sizes = np.array(sample.sizes, np.float64)
        aspects = self.sizes[:, 1] / self.sizes[:, 0]
        self.shapes = (aspects > _SQUARE).astype(int) - (aspects < 1 / _SQUARE)
        self.edges = evidence.peculiar(np.stack(sample.edges), self.shapes)

    @functools.cached_property
    def sums(self) -> np.ndarray:
        """Their integrals."""
        return evidence.integrals(self.edges)

    def beside(self, indices: np.ndarray, distance: int) -> np.ndarray:
        """Indices of the pictures `distance` rows on; -1 where it is not in the sample."""
        wanted = self.rows[indices] + distance
        at = np.minimum(np.searchsorted(self.rows, wanted), len(self.rows) - 1)
        return np.where(self.rows[at] == wanted, at, -1)


def standard_errors(values: np.ndarray) -> float:
    """How many standard errors the mean of values lies from 0."""
    error = values.std() / np.sqrt(len(values)) if len(values) else 0.0
    return float(values.mean() / error) if error > 0 else 0.0


def find_fault(column: Column, labels: Labels, pictures: Pictures) -> Fault | None:
    """The mistake that explains the labels of a column best, if any does."""
    is_box = column.field.geometry == "boxes"
    readings = [reading for reading in MISTAKES if is_box or reading.moves]
    score = functools.partial(_evidence, _Labels.of(labels), pictures)
    still = score(STILL)
    habits = [score(reading) for reading in HABITS if is_box]
    read = [score(reading) for reading in readings]
    shapes = {"": np.ones(len(pictures.rows), bool)}
    shapes |= {name: pictures.shapes == shape for name, shape in _SHAPES.items()}
    for shape, chosen in shapes.items():
        bar = max([still, *habits], key=lambda values: np.nanmean(np.where(chosen, values, 0)))
        found = [_compare(values, bar, still, chosen) for values in read]
        best = max(range(len(found)), key=lambda index: found[index].gain)
        if found[best].gain > 0:
            return _describe(column, readings[best], found[best], shape)
    return None


def fit(labels: Labels, pictures: Pictures) -> float:
    """Standard errors by which labels fit their pictures as they are."""
    values = _evidence(_Labels.of(labels), pictures, STILL)
    return standard_errors(values[np.isfinite(values)])


class _Comparison(NamedTuple):
    """A reading against the labels as they are; `gain` is 0 where it is not surely better."""

    gain: float = 0.0
    z: float = 0.0
    rows: int = 0
    as_is: float = 0.0
    as_read: float = 0.0


def _compare(
    values: np.ndarray, bar: np.ndarray, still: np.ndarray, chosen: np.ndarray
) -> _Comparison:
    rows = np.flatnonzero(chosen & np.isfinite(values) & np.isfinite(bar) & (values != still))
    if len(rows) < LEAST_ROWS:
        return _Comparison()
    gains = values[rows] - bar[rows]
    z = standard_errors(gains)
    sure = min(z, standard_errors(values[rows])) > LEAST_Z
    if not sure or values[rows].mean() < _LEAST_RATIO * bar[rows].mean():
        return _Comparison()
    return _Comparison(
        float(gains.sum() / chosen.sum()), z, len(rows), still[rows].mean(), values[rows].mean()
    )


def _describe(column: Column, reading: Reading, found: _Comparison, shape: str) -> Fault:
    images = f" {shape} images" if shape else " rows"
    return Fault(
        f"{column.kind} {reading.mistake}",
        f"{column}: they fit the pictures by {found.as_is:+.3f} as they are, by "
        f"{found.as_read:+.3f} if {reading.mistake}{reading.amount} "
        f"(z = {found.z:.1f} over {found.rows:,}{images}): {reading.remedy}",
    )


class _Labels(NamedTuple):
    """Boxes [k, 4] or edges of rasters [k, side, side], and whose they are [k]."""

    values: np.ndarray
    owners: np.ndarray

    @classmethod
    def of(cls, labels: Labels) -> "_Labels":
        return cls(np.stack(labels.values).astype(np.float32), np.array(labels.rows))


def _evidence(labels: _Labels, pictures: Pictures, reading: Reading) -> np.ndarray:
    """By picture [n], mean over its labels; NaN where there are none."""
    values, owners = labels
    seen = owners
    if reading.neighbour:
        seen = pictures.beside(owners, reading.neighbour)
        there = seen >= 0
        values, owners, seen = values[there], owners[there], seen[there]
    moves = reading.moves(pictures.sizes[owners]) if reading.moves else None
    if values.ndim == 2:
        boxes = reading.boxes(values) if reading.boxes else values
        boxes = boxes if moves is None else evidence.moved(boxes, moves)
        found = evidence.box_evidence(pictures.sums, seen, boxes)
    else:
        assert moves is not None, "a reading of boxes alone"
        found = np.zeros(len(values))
        for label, row in enumerate(seen):
            picture, raster = pictures.edges[row], values[label]
            found[label] = evidence.raster_evidence(picture, raster, moves[label])
    return mean_by_row(found, owners, len(pictures.rows))


def mean_by_row(values: np.ndarray, rows: np.ndarray, num_rows: int) -> np.ndarray:
    """[num_rows]; NaN for rows without values."""
    counts = np.bincount(rows, minlength=num_rows)
    sums = np.bincount(rows, values, minlength=num_rows)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
