# SPDX-License-Identifier: Apache-2.0
"""Checks a store to the last byte: `python -m tools.data.verify STORE`.

Every record of the base and of every sidecar is read: checksums, indexes, keys (unique, and the
same in every sidecar), images and rasters (they decode, at the size the record gives), and every
other column against its `Field`. Then the boxes and rasters of a sample of rows (--label_rows) are
compared with the pictures: labels that are turned, mirrored, shifted, of another row, or that have
far for near, are faults too. Exits 1 with counts and the first offenders of each kind.
"""

import argparse
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from input_pipeline import decode, example, store, tfrecord
from mtv_jax.core.errors import UserError, report_user_errors
from mtv_jax.core.fields import Field
from mtv_jax.core.progress import Progress
from tools.data import checks, digests, label_checks, parallel

_SHOWN = 5
_UNREADABLE = b""  # in place of a key


@dataclasses.dataclass
class Findings:
    """Faults by kind: how many, and where the first ones are."""

    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    examples: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        """Notes one fault."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(self.examples.setdefault(kind, [])) < _SHOWN:
            self.examples[kind].append(where)

    def merge(self, other: "Findings") -> None:
        """Adds the faults of another part of the store."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            examples = self.examples.setdefault(kind, [])
            examples += other.examples[kind][: _SHOWN - len(examples)]


@dataclasses.dataclass(frozen=True)
class ShardFindings:
    """What one shard of the base and of all sidecars showed; a hash of the key of every row."""

    findings: Findings
    key_hashes: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Row:
    """A record of the base: its key (`_UNREADABLE` without one), its (height, width) if known."""

    shard: int
    row: int
    key: bytes
    size: tuple[int, int] | None = None

    def describe(self, holder: str, fault: str = "") -> str:
        """Where this is, for a report."""
        name = f"{holder} shard {self.shard} row {self.row} ({self.key.decode(errors='replace')})"
        return f"{name}: {fault}" if fault else name


def check_shard(path: pathlib.Path, shard: int) -> ShardFindings:
    """Checks one shard of the base, then the same shard of every sidecar."""
    base = store.Store.open(path)
    findings = Findings()
    rows = _check_base(base, shard, findings)
    for sidecar in base.sidecars:
        _check_sidecar(store.Store.open(path, (sidecar,)), shard, rows, findings)
    return ShardFindings(findings, digests.of_each(row.key for row in rows))


def _check_base(base: store.Store, shard: int, findings: Findings) -> list[_Row]:
    rows = []
    for number in range(base.shard_rows[shard]):
        columns = _read(base, store.BASE, store.Location(shard, number), findings)
        key = columns.pop(store.KEY, [_UNREADABLE])[0]
        height, width = columns.get("height", []), columns.get("width", [])
        known = all(isinstance(side, np.ndarray) and side.size for side in (height, width))
        size = (int(height[0]), int(width[0])) if known else None
        row = _Row(shard, number, key, size)
        if columns and size is None:
            findings.add("records without height and width", row.describe(store.BASE))
        _check_record(base.fields_of(store.BASE), store.BASE, row, columns, findings)
        rows.append(row)
        parallel.count_done(1)
    _check_index(base.records(store.BASE, shard), base.shard_rows[shard], findings)
    return rows


def _check_sidecar(
    opened: store.Store, shard: int, rows: Sequence[_Row], findings: Findings
) -> None:
    (sidecar,) = opened.opened_sidecars
    if not _check_index(opened.records(sidecar, shard), len(rows), findings):
        return
    for row in rows:
        columns = _read(opened, sidecar, store.Location(shard, row.row), findings)
        key = columns.pop(store.KEY, [row.key])[0]
        if _UNREADABLE != row.key != key:
            found = dataclasses.replace(row, key=key)
            findings.add("keys differ from the base", found.describe(sidecar))
        _check_record(opened.fields_of(sidecar), sidecar, row, columns, findings)


def _read(
    opened: store.Store, holder: str, at: store.Location, findings: Findings
) -> dict[str, example.Column]:
    try:
        columns = example.decode(opened.records(holder, at.shard)[at.row])
    except (ValueError, IndexError, OSError) as error:
        findings.add("unreadable records", str(error))
        return {}
    if not isinstance(columns.get(store.KEY), list) or not columns[store.KEY]:
        findings.add("records without a key", f"{holder} shard {at.shard} row {at.row}")
        columns.pop(store.KEY, None)
    return columns


def _check_index(records: tfrecord.RecordFile, rows: int, findings: Findings) -> bool:
    """Whether a shard is there with `rows` records and an index that tells the truth."""
    try:
        offsets = tfrecord.scan(records.path)
        if len(offsets) - 1 != rows:
            raise ValueError(f"{records.path}: {len(offsets) - 1} records, want {rows}")
        if not np.array_equal(records.offsets, offsets):
            raise ValueError(f"{tfrecord.index_path(records.path)}: delete it")
    except OSError as error:
        findings.add("shards that cannot be read", f"{records.path}: {error.strerror}")
    except ValueError as error:
        findings.add("shards or indexes that do not fit", str(error))
    else:
        return True
    return False


def _check_record(
    fields: Sequence[Field],
    holder: str,
    row: _Row,
    columns: dict[str, example.Column],
    findings: Findings,
) -> None:
    """Checks the columns of one record, and decodes those that are rasters."""
    for fault in checks.record_faults(fields, columns):
        findings.add("columns that break their contract", row.describe(holder, fault))
    for kind, fault in checks.label_faults(fields, columns).items():
        findings.add(kind, row.describe(holder, fault))
    for field in fields:
        values = columns.get(field.name)
        if not field.codec or not isinstance(values, list) or not values:
            continue
        try:
            size = checks.decode_raster(field, values).shape[:2]
        except decode.DecodeError as error:
            findings.add("rasters that do not decode", row.describe(holder, str(error)))
            continue
        exact = field.codec == "image"
        if row.size and (fault := checks.size_fault(size, row.size, exact=exact)):
            findings.add("rasters of another size", row.describe(holder, f"{field.name} {fault}"))


def _check_unique(opened: store.Store, key_hashes: np.ndarray, findings: Findings) -> None:
    first_rows = np.unique(key_hashes, return_index=True)[1]
    readable = np.flatnonzero(key_hashes != digests.of_bytes(_UNREADABLE))
    for number, global_row in enumerate(np.setdiff1d(readable, first_rows)):
        where = ""
        if number < _SHOWN:
            at = opened.locate(int(global_row))
            key = opened.read(at.shard, at.row, [])[store.KEY][0]
            where = _Row(at.shard, at.row, key).describe(store.BASE)
        findings.add("keys used before", where)


def _check_selections(opened: store.Store, findings: Findings) -> None:
    for path in sorted(opened.path.glob("selections/*.npy")):
        try:
            rows = opened.selection(path.stem)
        except UserError as error:
            findings.add("selections that cannot be used", str(error))
            continue
        if (np.diff(rows.astype(np.int64)) <= 0).any():
            findings.add("selections not sorted", str(path))


def verify(path: pathlib.Path, workers: int) -> Findings:
    """Checks a whole store."""
    opened = store.Store.open(path)
    progress = Progress("verify", opened.num_rows)
    findings, key_hashes = Findings(), []
    results = parallel.map_shards(
        functools.partial(check_shard, path),
        range(len(opened.shard_rows)),
        workers=workers,
        on_progress=progress.show,
    )
    for result in results:
        findings.merge(result.findings)
        key_hashes.append(result.key_hashes)
    _check_unique(opened, np.concatenate(key_hashes), findings)
    _check_selections(opened, findings)
    progress.finish(opened.num_rows)
    return findings


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.data.verify", description=__doc__)
    parser.add_argument("store", type=pathlib.Path)
    parser.add_argument(
        "--label_rows",
        type=int,
        default=2000,
        help="rows whose labels are compared with their pictures (default: 2000); 0 for none",
    )
    parser.add_argument("--workers", type=int, default=parallel.available_cores())
    return parser.parse_args(arguments)


@report_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; exit status 1 where the store has a fault."""
    parsed = _parse(arguments)
    workers = max(parsed.workers, 1)
    findings = verify(parsed.store, workers)
    labels = label_checks.Report()
    if parsed.label_rows > 0:
        labels = label_checks.check(parsed.store, parsed.label_rows, workers)
    for fault in labels.faults:
        findings.add(fault.kind, fault.where)
    opened = store.Store.open(parsed.store)
    sidecars = ", ".join(opened.sidecars) or "none"
    print(
        f"{parsed.store}: {opened.num_rows:,} rows in {len(opened.shard_rows)} shards, "
        f"sidecars: {sidecars}"
    )
    for kind, count in findings.counts.items():
        print(f"{kind}: {count:,}")
        print("".join(f"  {where}\n" for where in findings.examples[kind]), end="")
    if labels.undecided:
        print(f"not compared with the pictures: {'; '.join(labels.undecided)}")
    print("faulty" if findings.counts else "sound")
    return 1 if findings.counts else 0


if __name__ == "__main__":
    sys.exit(main())
