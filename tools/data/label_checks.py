# SPDX-License-Identifier: Apache-2.0
"""Labels that are well formed and wrong, found over a sample of a store without any truth.

Where labels lie is the matter of `label_fit`; here are the values of rasters (which end is near,
lost resolution) and the texts of regions. Labels that say nothing about the pictures pass.
"""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from tools.data import label_evidence as evidence
from tools.data.label_fit import (
    LEAST_ROWS,
    LEAST_Z,
    Fault,
    Pictures,
    find_fault,
    fit,
    mean_by_row,
    standard_errors,
)
from tools.data.label_sample import Column, Labels, RasterFacts, Sample, draw

_PROMPT = re.compile(r"(an? |the )?(\w+ )?(photo|photograph|picture|image) of\b", re.IGNORECASE)
_MANY = 0.25  # of rasters or phrases: sound ones have a few
_AT_HIGHEST = 0.05  # of the pixels of a raster; the nearest thing is smaller
_AT_LOWEST = 0.6  # the sky is larger
_WRONG_SIDE = -0.3  # standard deviations of a raster
_FULL = 0.99 * 65535  # labels of few bits leave the lower ones 0


@dataclasses.dataclass
class Report:
    """What the labels of a store showed, and what its rows could not decide."""

    faults: list[Fault] = dataclasses.field(default_factory=list)
    undecided: list[str] = dataclasses.field(default_factory=list)


def check(path: pathlib.Path, rows: int, workers: int) -> Report:
    """Checks the labels of at most about `rows` rows of a store."""
    return check_sample(draw(path, rows, workers))


def check_sample(sample: Sample) -> Report:
    """Checks all columns of a sample."""
    report = Report()
    if not sample.rows:
        return report
    pictures = Pictures(sample)
    sound: dict[Column, Labels] = {}
    for column, labels in sample.labels.items():
        rows = len(set(labels.rows))
        if column.field.dtype == "str":
            report.faults.extend(_check_phrases(column, labels))
        elif rows < LEAST_ROWS:
            report.undecided.append(f"{column}, {rows} labelled rows (want {LEAST_ROWS})")
        elif fault := find_fault(column, labels, pictures):
            report.faults.append(fault)
        else:
            sound[column] = labels
    if not pictures.shapes.any() and any(column.kind == "boxes" for column in sound):
        report.undecided.append("padding of boxes, all images are square")
    boxes = [labels for column, labels in sound.items() if column.kind == "boxes"]
    for column, labels in sound.items():
        if column.kind == "boxes":
            report.faults.extend(_check_repeats(column, labels, sample))
        elif column.field.unit.startswith("disparity"):
            report.faults.extend(_check_disparity(column, labels, boxes, pictures))
    return report


def _check_phrases(column: Column, labels: Labels) -> Iterator[Fault]:
    with_prompt = [text for text in labels.texts if _PROMPT.match(text)]
    if len(labels.texts) >= LEAST_ROWS and len(with_prompt) > _MANY * len(labels.texts):
        yield Fault(
            f"{column.kind} with a prompt",
            f"{column}: {len(with_prompt):,} of {len(labels.texts):,}, such as {with_prompt[0]!r}: "
            "write the name alone; a template is for the detector that is asked",
        )


def _check_repeats(column: Column, labels: Labels, sample: Sample) -> Iterator[Fault]:
    texts = _texts_of(column, labels, sample)
    seen = collections.Counter(
        (row, box.tobytes(), text)
        for row, box, text in zip(labels.rows, labels.values, texts, strict=True)
    )
    repeats = len(labels.rows) - len(seen)
    if repeats > _MANY * len(labels.rows):
        yield Fault(
            "regions that repeat",
            f"{column}: {repeats:,} of {len(labels.rows):,} have box and phrase of another of "
            "their image: write each once",
        )


def _texts_of(column: Column, labels: Labels, sample: Sample) -> Sequence[str]:
    """The phrases of boxes; "" each where the holder has none that run along with them."""
    for other, found in sample.labels.items():
        same = other.holder == column.holder and other.field.dtype == "str"
        if same and found.rows == labels.rows:
            return found.texts
    return [""] * len(labels.rows)


def _check_disparity(
    column: Column, labels: Labels, boxes: Sequence[Labels], pictures: Pictures
) -> Iterator[Fault]:
    if fault := _far_is_large(column, labels, boxes, pictures):
        yield fault
        return  # its sky is at the wrong end
    yield from _check_range(column, labels.facts)


def _far_is_large(
    column: Column, labels: Labels, boxes: Sequence[Labels], pictures: Pictures
) -> Fault | None:
    """Whether the ground is farther than what is above it, and things than what is around them."""
    signs = [np.array([facts.ground for facts in labels.facts])]
    signs += [_nearness(labels, each, len(pictures.rows)) for each in boxes]
    found = [(values.mean(), standard_errors(values)) for values in signs if len(values)]
    clear = any(mean < _WRONG_SIDE and z < -LEAST_Z for mean, z in found)
    if not clear or any(z > 0 for _, z in found) or fit(labels, pictures) < LEAST_Z:
        return None
    names = ("bottom less top", *["inside of boxes less around"] * len(boxes))
    numbers = (
        f"{name} {mean:+.2f} (z = {z:.1f})" for name, (mean, z) in zip(names, found, strict=False)
    )
    return Fault(
        f"{column.kind} where disparity belongs",
        f"{column}: {', '.join(numbers)} in standard deviations of a map: large must be near; "
        "write 1 / depth (tools.data.depth_maps --are depth)",
    )


def _nearness(labels: Labels, boxes: Labels, num_rows: int) -> np.ndarray:
    """By row that has both: how much nearer a map is inside of boxes than around them."""
    index = {row: at for at, row in enumerate(labels.rows)}
    both = [at for at, row in enumerate(boxes.rows) if row in index]
    if not both:
        return np.zeros(0)
    rows = np.array([boxes.rows[at] for at in both])
    sums = evidence.integrals(np.stack(labels.maps))
    at_map = np.array([index[row] for row in rows])
    found = evidence.nearness(sums, at_map, np.stack([boxes.values[at] for at in both]))
    by_row = mean_by_row(found, rows, num_rows)
    return by_row[np.isfinite(by_row)]


def _check_range(column: Column, facts: Sequence[RasterFacts]) -> Iterator[Fault]:
    scaled = "min-max" in column.field.unit
    tests = {
        "cut off at an end": (
            [each.at_highest > _AT_HIGHEST or each.at_lowest > _AT_LOWEST for each in facts],
            "many pixels at its upper end, or most at its lower: scale each map from its own "
            "least to its greatest",
        ),
        "that is not scaled": (
            [scaled and (each.lowest > 0 or each.highest < _FULL) for each in facts],
            "not from 0 to 65535: scale each map from its own least to its greatest",
        ),
    }
    for kind, (hits, remedy) in tests.items():
        if sum(hits) > _MANY * len(hits):
            where = f"{column}: {sum(hits):,} of {len(hits):,} maps: {remedy}"
            yield Fault(f"{column.kind} {kind}", where)
            return
