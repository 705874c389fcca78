# SPDX-License-Identifier: Apache-2.0
"""What a gallery shows of a store: rows with the labels of every sidecar, or why there are none."""

import functools
import itertools
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import decode, licences, manifests, store, tfrecord
from input_pipeline.example import Column
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import IMAGE, Field
from tools.data import inspect

_UNREADABLE = (tfrecord.RecordError, OSError, LookupError)
_LOOKED_AT = 50  # rows for each that is wanted, to find labelled or rejected ones


class Region(NamedTuple):
    """A box, xyxy in [0, 1], with its text and score where it has them."""

    box: tuple[float, ...]
    phrase: str
    score: float | None


class Raster(NamedTuple):
    """A column of pixels, in colours for the eye: uint8 [h, w, 3]."""

    field: Field
    pixels: np.ndarray


class Labels(NamedTuple):
    """What one sidecar holds for a row; `missing` says why where that is nothing."""

    sidecar: str
    regions: list[Region]
    tags: list[str]
    rasters: list[Raster]
    missing: str


class Row(NamedTuple):
    """A row of the store; without an image, `fault` says why."""

    key: str
    place: store.Location
    captions: list[str]
    image: np.ndarray | None
    fault: str
    labels: list[Labels]


class Summary(NamedTuple):
    """Of a sidecar: whose it is, and how many rows fared how."""

    terms: licences.Terms
    labelled: int | None
    rejected: Mapping[str, int]
    dropped: Mapping[str, int]


class Gallery:
    """A store opened with all its sidecars, each by itself: two may hold the same column."""

    def __init__(self, path: pathlib.Path):
        self.base = store.Store.open(path)
        self.sidecars = {name: store.Store.open(path, (name,)) for name in self.base.sidecars}
        self._funnel = functools.lru_cache(256)(functools.partial(_read_funnel, path))

    def summaries(self) -> list[Summary]:
        """One for each sidecar."""
        return [self._summary(terms) for terms in licences.terms(self.base.path)]

    def _summary(self, terms: licences.Terms) -> Summary:
        provenance = manifests.read_sidecar(self.base.path, terms.sidecar)["provenance"]
        return Summary(
            terms,
            provenance.get("labelled"),
            provenance.get("rejected_by_reason", {}),
            provenance.get("dropped_by_reason", {}),
        )

    def choose(self, count: int, *, only: str | None, seed: int | None) -> list[int]:
        """Global rows, sorted: evenly spread, or drawn with a seed.

        Args:
            count: how many at most.
            only: "labelled" by at least one sidecar, "rejected" by at least one, or None for all.
            seed: of the draw.

        Raises:
            UserError: no such row among those looked at.
        """
        rows = _spread(self.base.num_rows, count * (_LOOKED_AT if only else 1), seed)
        looked_at = len(rows)
        if only:
            rows = rows[[self._is(only, int(row)) for row in rows]]
        if len(rows) == 0:
            which = f" {only}: {looked_at:,} of {self.base.num_rows:,} rows were looked at"
            raise UserError(f"{self.base.path}: nothing to show{which if only else ''}")
        return [int(row) for row in rows[_spread(len(rows), count, seed)]]

    def _is(self, only: str, row: int) -> bool:
        labels = [self._labels(name, "", self.base.locate(row)) for name in self.sidecars]
        return any((only == "rejected") == bool(each.missing) for each in labels)

    def read(self, row: int) -> Row:
        """One row with everything that is shown of it."""
        at = self.base.locate(row)
        try:
            columns = self.base.read(*at, self.base.fields)
        except _UNREADABLE as error:
            return Row("", at, [], None, str(error), [])
        (key,) = _texts(columns[store.KEY])
        captions = [
            text
            for field in self.base.fields.values()
            if field.dtype == "str" and field.encode == "tokens"
            for text in _texts(columns.get(field.name, []))
        ]
        labels = [self._labels(name, key, at) for name in self.sidecars]
        try:
            image = inspect.colored(self.base.fields[IMAGE.name], columns[IMAGE.name])
        except (decode.DecodeError, LookupError) as error:
            return Row(key, at, captions, None, f"no image: {error}", labels)
        return Row(key, at, captions, image, "", labels)

    def _labels(self, sidecar: str, key: str, at: store.Location) -> Labels:
        opened = self.sidecars[sidecar]
        fields = {field.name: field for field in opened.fields_of(sidecar)}
        try:
            columns = opened.read(*at, fields)
            found = {name: columns[name] for name in fields if len(columns.get(name, []))}
            rasters = [
                Raster(fields[name], inspect.colored(fields[name], values))
                for name, values in found.items()
                if fields[name].codec
            ]
        except (*_UNREADABLE, decode.DecodeError) as error:
            return Labels(sidecar, [], [], [], str(error))
        if not found:
            rejections = self._funnel(sidecar, at.shard).get("rejections", {})
            return Labels(sidecar, [], [], [], rejections.get(key, "no labels"))
        return Labels(sidecar, _regions(fields, found), _tags(fields, found), rasters, "")


def _spread(total: int, count: int, seed: int | None) -> np.ndarray:
    """At most `count` of the numbers below `total`, sorted."""
    count = min(count, total)
    if seed is None:
        return np.linspace(0, max(total - 1, 0), count).astype(int)
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False))


def _regions(fields: Mapping[str, Field], columns: Mapping[str, Column]) -> list[Region]:
    regions = []
    for name, field in fields.items():
        if field.geometry == "boxes" and name in columns:
            phrases, scores = _beside(field, fields, columns)
            boxes = np.reshape(np.asarray(columns[name]), (-1, 4)).tolist()
            for box, phrase, score in itertools.zip_longest(boxes, phrases, scores):
                if box is not None:
                    regions.append(Region(tuple(box), phrase or "", score))
    return regions


def _tags(fields: Mapping[str, Field], columns: Mapping[str, Column]) -> list[str]:
    """Ragged texts that belong to no boxes or points, with their scores."""
    placed = {field.shape.split()[0] for field in fields.values() if field.geometry != "none"}
    tags = []
    for name, field in fields.items():
        if field.dtype == "str" and name in columns and field.shape not in placed:
            scores = _beside(field, fields, columns)[1]
            for text, score in itertools.zip_longest(_texts(columns[name]), scores):
                tags.append(f"{text} {score:.2f}" if score is not None else text)
    return tags


def _beside(
    field: Field, fields: Mapping[str, Field], columns: Mapping[str, Column]
) -> tuple[list[str], list[float]]:
    """The texts and the scores that run along the same axis."""
    axis = field.shape.split()[0] if field.shape else ""
    same = [name for name, other in fields.items() if other.shape == axis and name in columns]
    texts = next((_texts(columns[name]) for name in same if fields[name].dtype == "str"), [])
    scores = next((columns[name] for name in same if "score" in name), [])
    return texts, [float(score) for score in scores]


def _texts(values: Column) -> list[str]:
    return [value.decode(errors="replace") for value in values if isinstance(value, bytes)]


def _read_funnel(path: pathlib.Path, sidecar: str, shard: int) -> dict[str, Any]:
    """What an expert noted of a shard; nothing where the sidecar was made by hand."""
    file = path / f"{sidecar}-{shard:05d}.funnel.json"
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): remove it") from error
