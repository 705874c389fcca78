# SPDX-License-Identifier: Apache-2.0
"""A sample of a store for `label_checks`: small maps of its pictures and of the labels on them."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from input_pipeline import decode, example, store, tfrecord
from mtv_jax.core.fields import IMAGE, Field
from tools.data import label_evidence, parallel

_RUN = 16  # rows in a row: those beside a row are looked at too


class Column(NamedTuple):
    """A column of a holder."""

    holder: str
    field: Field

    @property
    def kind(self) -> str:
        """What a report calls its labels."""
        return "boxes" if self.field.geometry == "boxes" else self.field.name

    def __str__(self) -> str:
        return f"{self.holder} {self.field.name}"


class RasterFacts(NamedTuple):
    """Of one raster: its range, the shares of its pixels at the ends, its ground.

    `ground` is how much larger its lower third is than its upper third, in standard deviations.
    """

    at_lowest: float
    at_highest: float
    lowest: int
    highest: int
    ground: float


@dataclasses.dataclass
class Labels:
    """What the sampled rows hold in one column; `rows` are indices into the sample's pictures.

    Attributes:
        rows: [k] of each box, each text or each raster.
        values: boxes [k, 4]; edges of rasters [k, side, side].
        texts: of "str" columns.
        maps: standardised rasters [k, side, side].
        facts: of rasters.
    """

    rows: list[int] = dataclasses.field(default_factory=list)
    values: list[np.ndarray] = dataclasses.field(default_factory=list)
    texts: list[str] = dataclasses.field(default_factory=list)
    maps: list[np.ndarray] = dataclasses.field(default_factory=list)
    facts: list[RasterFacts] = dataclasses.field(default_factory=list)

    def extend(self, other: "Labels", first: int) -> None:
        """Adds those of pictures that come after `first` others."""
        self.rows += [row + first for row in other.rows]
        for name in ("values", "texts", "maps", "facts"):
            getattr(self, name).extend(getattr(other, name))


@dataclasses.dataclass
class Sample:
    """Pictures that can be read, in the order of their rows, and their labels by column.

    Attributes:
        rows: global row numbers [n].
        sizes: (height, width) [n].
        edges: maps [n, side, side], float16.
        labels: by column.
    """

    rows: list[int] = dataclasses.field(default_factory=list)
    sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    edges: list[np.ndarray] = dataclasses.field(default_factory=list)
    labels: dict[Column, Labels] = dataclasses.field(default_factory=dict)

    def extend(self, other: "Sample") -> None:
        """Adds the rows of another shard."""
        for column, labels in other.labels.items():
            self.labels.setdefault(column, Labels()).extend(labels, len(self.rows))
        self.rows += other.rows
        self.sizes += other.sizes
        self.edges += other.edges


def draw(path: pathlib.Path, most: int, workers: int) -> Sample:
    """At most about `most` rows, in short runs that are spread evenly over the store."""
    opened = store.Store.open(path)
    runs = np.arange(0, opened.num_rows, _RUN)
    kept = runs[np.linspace(0, len(runs) - 1, min(max(most // _RUN, 1), len(runs))).astype(int)]
    by_shard: dict[int, list[int]] = {}
    for row in (kept[:, None] + np.arange(_RUN)).ravel():
        if row < opened.num_rows:
            by_shard.setdefault(opened.locate(int(row)).shard, []).append(int(row))
    sample = Sample()
    for part in parallel.map_shards(
        functools.partial(_read_rows, path), list(by_shard.values()), workers=workers
    ):
        sample.extend(part)
    return sample


def _read_rows(path: pathlib.Path, rows: Sequence[int]) -> Sample:
    base = store.Store.open(path)
    holders = [(store.BASE, base)]
    holders += [(name, store.Store.open(path, (name,))) for name in base.sidecars]
    columns = [
        (Column(name, field), opened)
        for name, opened in holders
        for field in opened.fields_of(name)
        if _is_checked(field)
    ]
    sample = Sample(labels={column: Labels() for column, _ in columns})
    for row in rows:
        at = base.locate(row)
        try:
            encoded = base.read(at.shard, at.row, [IMAGE.name])[IMAGE.name][0]
            image = decode.decode_image(bytes(encoded), min_side=label_evidence.SIDE)
        except (decode.DecodeError, tfrecord.RecordError, OSError, LookupError):
            continue  # counted where every record is read
        for column, opened in columns:
            values = _values(opened, at, column.field)
            _add(sample.labels[column], column.field, values, len(sample.rows))
        sample.rows.append(row)
        sample.sizes.append((image.shape[0], image.shape[1]))
        sample.edges.append(label_evidence.edges_of_image(image).astype(np.float16))
    return sample


def _is_checked(field: Field) -> bool:
    raster = field.geometry == "raster" and field.codec == "png16"
    return raster or field.geometry == "boxes" or field.encode == "vocabulary"


def _values(opened: store.Store, at: store.Location, field: Field) -> example.Column:
    """What a row holds in a column; nothing where it cannot be read, which is counted elsewhere."""
    try:
        return opened.read(at.shard, at.row, [field.name]).get(field.name, [])
    except (tfrecord.RecordError, OSError, LookupError):
        return []


def _add(labels: Labels, field: Field, values: example.Column, row: int) -> None:
    if field.geometry == "boxes":
        if isinstance(values, np.ndarray) and values.size % 4 == 0 and np.isfinite(values).all():
            labels.values += list(values.reshape(-1, 4))
            labels.rows += [row] * (values.size // 4)
    elif field.dtype == "str":
        texts = [text.decode(errors="replace") for text in values if isinstance(text, bytes)]
        labels.texts += texts
        labels.rows += [row] * len(texts)
    elif isinstance(values, list) and values:
        try:
            raster = decode.decode_png16(values[0])
        except decode.DecodeError:
            return
        canvas = label_evidence.to_square(raster)
        labels.rows.append(row)
        labels.values.append(label_evidence.edges(canvas).astype(np.float16))
        labels.maps.append(label_evidence.standardised(canvas).astype(np.float16))
        labels.facts.append(_facts(raster, labels.maps[-1]))


def _facts(raster: np.ndarray, standardised: np.ndarray) -> RasterFacts:
    third = len(standardised) // 3
    lowest, highest = int(raster.min()), int(raster.max())
    return RasterFacts(
        at_lowest=float((raster == lowest).mean()),
        at_highest=float((raster == highest).mean()),
        lowest=lowest,
        highest=highest,
        ground=float(standardised[-third:].mean() - standardised[:third].mean()),
    )
