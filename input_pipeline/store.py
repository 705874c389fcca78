# SPDX-License-Identifier: Apache-2.0
"""The store: samples written once, read by row number.

A store is a folder:

    store.json                       manifest, written last: without it there is no store
    images-00000.tfrecord (.index)   base shards of Examples: key, image, caption, height, width, …
    depth_v1.json                    manifest of the sidecar `depth_v1`
    depth_v1-00000.tfrecord (.index) its records: same shards, rows and keys as the base
    regions_v1.phrases.tsv           `phrase<TAB>count` lines, for a column encoded as a vocabulary
    selections/<name>.npy            sorted uint64 global row numbers

The global row number of a record is its row plus the rows of all earlier shards. A label lives in
a sidecar, so adding one never rewrites an image and `rm` takes it away again; a row the labeller
had nothing for holds only its key. A filter or a subset is a selection.
"""

import bisect
import io
import itertools
import os
import pathlib
import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import example, files, manifests, phrase_counts, tfrecord
from input_pipeline.manifests import StoreError
from mtv_jax.core.fields import Field

BASE = "images"
KEY = "key"
_RESERVED = {"store", "funnel", "ingest", BASE}
_MAX_OPEN_FILES = 256  # each holds two descriptors; the usual limit is 1024 a process


class Location(NamedTuple):
    """Where a record lies inside its store."""

    shard: int
    row: int


class Store:
    """Read access to one store. Opens files on first use: pickle it, fork it, spawn with it."""

    def __init__(self, path: pathlib.Path, sidecars: tuple[str, ...]):
        manifest = manifests.read_base(path)
        self.path = path
        self.name: str = manifest["name"]
        self.provenance: dict[str, Any] = manifest["provenance"]
        self.shard_rows: tuple[int, ...] = tuple(manifest["shards"])
        self.opened_sidecars = sidecars
        self.fields: dict[str, Field] = {}
        self._holder: dict[str, str] = {}
        self._add_fields(BASE, manifest["fields"])
        for sidecar in sidecars:
            self._add_fields(sidecar, manifests.read_sidecar(path, sidecar)["fields"])
        self._starts = list(itertools.accumulate(self.shard_rows, initial=0))
        self._open_files: OrderedDict[str, tfrecord.RecordFile] = OrderedDict()

    @classmethod
    def open(cls, path: str | os.PathLike[str], sidecars: Sequence[str] = ()) -> "Store":
        """The store at `path` with the columns of `sidecars`.

        Raises:
            StoreError: no complete store there, no such sidecar, a damaged manifest, or two holders
            of one column.
        """
        return cls(pathlib.Path(path), tuple(sidecars))

    def __reduce__(self) -> tuple[type, tuple[pathlib.Path, tuple[str, ...]]]:
        return Store, (self.path, self.opened_sidecars)

    @property
    def num_rows(self) -> int:
        """Number of records."""
        return self._starts[-1]

    @property
    def sidecars(self) -> tuple[str, ...]:
        """Names of all finished sidecars, opened or not."""
        return manifests.sidecars_in(self.path)

    def sidecar_columns(self) -> dict[str, list[str]]:
        """By column, the names of the finished sidecars that hold it, opened or not."""
        holders: dict[str, list[str]] = {}
        for name in self.sidecars:
            for field in manifests.read_sidecar(self.path, name)["fields"]:
                holders.setdefault(field["name"], []).append(name)
        return holders

    def fields_of(self, holder: str) -> tuple[Field, ...]:
        """The columns that the base (`BASE`) or one opened sidecar brings."""
        return tuple(field for name, field in self.fields.items() if self._holder[name] == holder)

    def locate(self, global_row: int) -> Location:
        """Shard and row of a global row number; IndexError outside [0, num_rows)."""
        if not 0 <= global_row < self.num_rows:
            raise IndexError(f"{self.path}: no row {global_row}, it has {self.num_rows}")
        shard = bisect.bisect_right(self._starts, global_row) - 1
        return Location(shard, global_row - self._starts[shard])

    def read(self, shard: int, row: int, names: Collection[str]) -> dict[str, example.Column]:
        """Columns `names` of one record, plus its key, merged over base and opened sidecars.

        Args:
            shard: shard number.
            row: row inside the shard.
            names: columns of `self.fields`.

        Returns:
            By name a list of bytes, an int64 array [n] or a float32 array [n]. A column that the
            record lacks is absent.

        Raises:
            KeyError: a name that neither the base nor an opened sidecar holds.
            RecordError: a record that cannot be trusted, or keys that differ between files.
        """
        names_by_holder: dict[str, list[str]] = {}
        for name in names:
            if name != KEY:
                names_by_holder.setdefault(self._held_by(name), [KEY]).append(name)
        columns: dict[str, example.Column] = {}
        for holder, wanted in (names_by_holder or {BASE: [KEY]}).items():
            found = self._decode(holder, Location(shard, row), wanted)
            if columns.get(KEY, found[KEY]) != found[KEY]:
                raise tfrecord.RecordError(
                    f"{shard_path(self.path, holder, shard)}: row {row} has key "
                    f"{found[KEY][0]!r}, another file of the store has {columns[KEY][0]!r}"
                )
            columns.update(found)
        return columns

    def selection(self, name: str) -> np.ndarray:
        """Global row numbers of selection `name`: uint64 [n], sorted, memory-mapped."""
        path = _selection_path(self.path, name)
        try:
            rows = np.load(path, mmap_mode="r")
        except FileNotFoundError as error:
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.npy"))) or "none"
            raise StoreError(f"{self.path} has no selection {name!r} (it has: {known})") from error
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(
                f"{path} cannot be read ({error}): restore it or make it again"
            ) from error
        if rows.dtype != np.uint64 or rows.ndim != 1 or (len(rows) and rows[-1] >= self.num_rows):
            raise StoreError(f"{path} is not a selection of {self.path}: make it again")
        return rows

    def vocabulary(self, column: str) -> dict[str, int]:
        """How often each phrase of an opened vocabulary column occurs, most frequent first.

        Raises:
            StoreError: `column` is no such column, or its file is missing or damaged.
        """
        if column not in self.fields or self.fields[column].encode != "vocabulary":
            raise StoreError(
                f"{self.path}: {column!r} is no opened column of phrases: open the sidecar that "
                f"holds them (sidecars: {', '.join(self.sidecars) or 'none'})"
            )
        path = phrase_counts.table_path(self.path, self._holder[column], column)
        try:
            return phrase_counts.read(path)
        except (OSError, ValueError) as error:
            fault = f"is damaged ({error})"
            if isinstance(error, FileNotFoundError):
                fault = "is missing"
            raise StoreError(
                f"{path} {fault}: make the labels again (boxes that you have with `python -m "
                "tools.data.regions --overwrite`; for made scenes, give their `python -m "
                "tools.data.make_scenes` command again: it adds the file)"
            ) from error

    def records(self, holder: str, shard: int) -> tfrecord.RecordFile:
        """The raw records of one shard of the base (`BASE`) or of a sidecar."""
        path = shard_path(self.path, holder, shard)
        file = self._open_files.pop(path.name, None)
        if file is None:
            file = tfrecord.RecordFile(path)
        self._open_files[path.name] = file
        if len(self._open_files) > _MAX_OPEN_FILES:
            self._open_files.popitem(last=False)
        return file

    def _add_fields(self, holder: str, fields: Sequence[Mapping[str, Any]]) -> None:
        for attributes in fields:
            field = Field(**attributes)
            if field.name in self._holder:
                raise StoreError(
                    f"{self.path}: column {field.name!r} is in both {self._holder[field.name]} "
                    f"and {holder}: open only one of them"
                )
            self.fields[field.name] = field
            self._holder[field.name] = holder

    def _held_by(self, name: str) -> str:
        if name not in self._holder:
            raise KeyError(
                f"{self.path}: no column {name!r} (opened: {', '.join(self._holder)}; "
                f"sidecars: {', '.join(self.sidecars) or 'none'})"
            )
        return self._holder[name]

    def _decode(self, holder: str, at: Location, names: list[str]) -> dict[str, example.Column]:
        payload = self.records(holder, at.shard)[at.row]
        try:
            columns = example.decode(payload, names)
        except ValueError as error:
            path = shard_path(self.path, holder, at.shard)
            raise tfrecord.RecordError(f"{path}: row {at.row}: {error}") from error
        if not isinstance(columns.get(KEY), list) or not columns[KEY]:
            path = shard_path(self.path, holder, at.shard)
            raise tfrecord.RecordError(f"{path}: row {at.row} has no key")
        return columns


def shard_path(directory: str | os.PathLike[str], prefix: str, shard: int) -> pathlib.Path:
    """The TFRecord file of one shard; `prefix` is `BASE` or a sidecar's name."""
    return pathlib.Path(directory) / f"{prefix}-{shard:05d}.tfrecord"


def write_shard(
    directory: str | os.PathLike[str],
    prefix: str,
    shard: int,
    rows: Iterable[Mapping[str, example.Value]],
) -> int:
    """Writes one shard, which appears when its last row is written.

    Args:
        directory: the store; made when absent.
        prefix: `BASE` for base shards, else the sidecar's name.
        shard: shard number.
        rows: one mapping a record, each with a `key`.

    Returns:
        Number of rows written.
    """
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    count = 0
    with tfrecord.RecordWriter(shard_path(directory, prefix, shard)) as writer:
        for row in rows:
            if KEY not in row:
                raise StoreError(f"row {count} of {prefix} shard {shard} has no key")
            writer.write(example.encode(row))
            count += 1
    return count


def finish_store(
    directory: str | os.PathLike[str],
    name: str,
    fields: Iterable[Field],
    provenance: Mapping[str, Any],
) -> None:
    """Commits the base shards lying in `directory` as a store, and lists its phrases.

    Args:
        directory: holds `images-00000.tfrecord` and so on, without a gap.
        name: what the store is called in logs and mixtures.
        fields: the columns of the base records, key excepted.
        provenance: how the store was made: sources, settings, versions. JSON-able.
    """
    fields, rows = tuple(fields), _shard_rows(directory, BASE)
    manifest = {"name": name, "shards": rows}
    _write_vocabularies(directory, BASE, fields, len(rows), {})
    manifests.write(pathlib.Path(directory) / manifests.BASE, manifest, fields, provenance)


def finish_sidecar(
    directory: str | os.PathLike[str],
    sidecar: str,
    fields: Iterable[Field],
    provenance: Mapping[str, Any],
    vocabularies: Mapping[str, Mapping[str, int]] | None = None,
) -> None:
    """Commits the shards of `sidecar`, which must match the base in shards and rows.

    Args:
        directory: the finished store.
        sidecar: its name.
        fields: the columns of its records, key excepted.
        provenance: how it was made. JSON-able.
        vocabularies: count by phrase, by vocabulary column; others are counted in the shards.
    """
    if sidecar in _RESERVED or not re.fullmatch(r"[A-Za-z0-9_.]+", sidecar):
        raise StoreError(f"{sidecar!r} cannot name a sidecar")
    base_rows = Store.open(directory).shard_rows
    rows = _shard_rows(directory, sidecar)
    if tuple(rows) != base_rows:
        raise StoreError(
            f"sidecar {sidecar} of {directory} has {len(rows)} shards of {rows[:8]}… rows, the "
            f"base {len(base_rows)} of {list(base_rows[:8])}…: write one row per base row"
        )
    fields = tuple(fields)
    _write_vocabularies(directory, sidecar, fields, len(rows), vocabularies or {})
    path = pathlib.Path(directory) / f"{sidecar}.json"
    manifests.write(path, {"name": sidecar}, fields, provenance)


def write_selection(directory: str | os.PathLike[str], name: str, rows: np.ndarray) -> None:
    """Writes the global row numbers `rows` (any order, duplicates merged) as selection `name`."""
    selected = np.unique(np.asarray(rows, np.uint64))
    num_rows = Store.open(directory).num_rows
    if len(selected) and selected[-1] >= num_rows:
        raise StoreError(f"selection {name}: row {selected[-1]} of a store of {num_rows}")
    path = _selection_path(pathlib.Path(directory), name)
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, selected)
    files.write_atomically(path, buffer.getvalue())


def _selection_path(directory: pathlib.Path, name: str) -> pathlib.Path:
    return directory / "selections" / f"{name}.npy"


def _shard_rows(directory: str | os.PathLike[str], prefix: str) -> list[int]:
    """Rows of every shard of `prefix`; StoreError when one is missing or damaged, or all are."""
    numbers = sorted(
        int(path.stem.rpartition("-")[2])
        for path in pathlib.Path(directory).glob(f"{prefix}-*.tfrecord")
    )
    if not numbers or numbers != list(range(len(numbers))):
        missing = sorted(set(range(max(numbers, default=0) + 1)) - set(numbers))
        raise StoreError(f"{directory}: {prefix} shards {missing[:8]} are missing")
    return [_whole_rows(shard_path(directory, prefix, shard)) for shard in numbers]


def _whole_rows(path: pathlib.Path) -> int:
    try:
        offsets = tfrecord.RecordFile(path).offsets
        if offsets[-1] == path.stat().st_size:
            return len(offsets) - 1
    except tfrecord.RecordError as error:
        raise StoreError(f"{error}; remove that file and make it again") from error
    raise StoreError(f"{path} is cut short: remove it and make it again")


def _write_vocabularies(
    directory: str | os.PathLike[str],
    holder: str,
    fields: Sequence[Field],
    num_shards: int,
    known: Mapping[str, Mapping[str, int]],
) -> None:
    columns = [field.name for field in fields if field.encode == "vocabulary"]
    paths = (shard_path(directory, holder, shard) for shard in range(num_shards))
    try:
        counted = phrase_counts.count(paths, [name for name in columns if name not in known])
    except ValueError as error:
        raise StoreError(f"{error}; remove that file and make it again") from error
    for column in columns:
        path = phrase_counts.table_path(pathlib.Path(directory), holder, column)
        phrase_counts.write(path, {**counted, **known}[column])
