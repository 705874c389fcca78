# SPDX-License-Identifier: Apache-2.0
"""Lists of images with addresses, as DataComp and LAION publish them: parquet files, filtered.

Column names are read without regard to case, so that DataComp's `text` and LAION's `TEXT` are one.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from mtv_jax.core.errors import UserError
from tools.data import conditions, scores
from tools.data.row_funnel import RowFunnel

_ALIASES = {
    "caption": "text",
    "aesthetic": "aesthetic_score",
    "original_width": "width",
    "original_height": "height",
}
_KEPT = ("url", "text", "uid", "sha256", "face_bboxes", *scores.DEFAULT)
HASH, BOXES = "sha256", "face_bboxes"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is wanted of the rows.

    Attributes:
        conditions: on scores and sizes.
        missing: `keep` or `drop`, where a value is missing.
        min_side: least short side in pixels, where the list tells sizes.
        max_aspect: greatest ratio of the sides.
        take: so many of the rows, at random; None is all.
        seed: of `take`.
    """

    conditions: tuple[conditions.Condition, ...]
    missing: str
    min_side: int
    max_aspect: float
    take: int | None
    seed: int


class Metadata:
    """The files of a list, in the order of their names.

    Attributes:
        files: the parquet files.
        columns: known columns that the first file has: its name for each, by ours.
        file_rows: rows of every file.
    """

    def __init__(self, paths: Sequence[pathlib.Path]):
        """Reads the footers of files and of folders of files.

        Raises:
            UserError: no such files, damaged ones, or such as have no rows or no addresses.
        """
        self.files = [file for path in paths for file in parquet_files(path)]
        if not self.files:
            raise UserError(f"--metadata: no .parquet file in {', '.join(map(str, paths))}")
        self.columns = self._columns_of(self.files[0])
        if "url" not in self.columns:
            raise UserError(f"{self.files[0]} has no column url: it is not a list of images")
        self.file_rows = [self._rows_of(file) for file in self.files]
        if not self.num_rows:
            raise UserError(f"--metadata {self.files[0]}: the list has no rows")

    @property
    def num_rows(self) -> int:
        """Over all files."""
        return sum(self.file_rows)

    @property
    def kept(self) -> list[str]:
        """The columns that go into the list for the downloader."""
        return [name for name in _KEPT if name in self.columns]

    def name_of(self, row: int) -> str:
        """Where a row lies, for messages."""
        for file, rows in zip(self.files, self.file_rows, strict=True):
            if row < rows:
                return f"{file.name}:{row}"
            row -= rows
        raise IndexError(row)

    def batches(self, names: Sequence[str]) -> Iterator[pyarrow.Table]:
        """Row groups with the columns `names`, in order, by our names."""
        for path in self.files:
            with _opened(path) as file:
                theirs = self._columns_of(path)
                lacking = [name for name in names if name not in theirs]
                if lacking:
                    raise UserError(
                        f"{path} has no column {', '.join(lacking)}, {self.files[0]} has: fetch "
                        "them one after the other, each into its own --output"
                    )
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, [theirs[name] for name in names])
                    yield table.select([theirs[name] for name in names]).rename_columns(list(names))

    @staticmethod
    def _columns_of(path: pathlib.Path) -> dict[str, str]:
        with _opened(path) as file:
            names = {name.lower(): name for name in reversed(file.schema_arrow.names)}
        for theirs, ours in _ALIASES.items():
            if theirs in names:
                names[ours] = names.pop(theirs)
        return names

    @staticmethod
    def _rows_of(path: pathlib.Path) -> int:
        with _opened(path) as file:
            return file.metadata.num_rows


def choose(metadata: Metadata, wanted: Wanted) -> RowFunnel:
    """Which rows are wanted. Takes 2 bytes of memory a row and rule, 5 for `--top`."""
    rules = _rules(metadata, wanted)
    names = sorted({name for rule in rules for name in rule.columns})
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in rules]
    for table in metadata.batches(names):
        for parts, rule in zip(found, rules, strict=True):
            parts.append(rule.judge(table))
    funnel = RowFunnel(np.ones(metadata.num_rows, bool), metadata.name_of)
    for parts, rule in zip(found, rules, strict=True):
        judged, missing = (np.concatenate(part) for part in zip(*parts, strict=True))
        fails = rule.finish(judged, funnel.alive)
        if wanted.missing == "drop":
            fails = fails | missing
        funnel.take_out(rule.name, fails, missing)
    if wanted.take is not None:
        funnel.take_random(wanted.take, wanted.seed)
    return funnel


def wanted_tables(metadata: Metadata, alive: np.ndarray) -> Iterator[pyarrow.Table]:
    """The rows where `alive`, with the columns that are kept: scores as float32."""
    start = 0
    for table in metadata.batches(metadata.kept):
        rows = alive[start : start + len(table)]
        start += len(table)
        if rows.any():
            chosen = table.filter(pyarrow.array(rows))
            fields = [_field(field) for field in chosen.schema]
            yield chosen.cast(pyarrow.schema(fields), safe=False)


@dataclasses.dataclass(frozen=True)
class _Rule:
    """A condition, an address that must be there, or a size."""

    name: str
    columns: tuple[str, ...]
    condition: conditions.Condition | None = None
    min_side: int = 0
    max_aspect: float = 0.0

    def judge(self, table: pyarrow.Table) -> tuple[np.ndarray, np.ndarray]:
        """(which rows fail, or the numbers that a share is taken of; which lack a value)."""
        if self.condition is not None:
            values = _values(table[self.condition.column], as_words=not self.condition.is_number)
            missing = conditions.lacks(values)
            if self.condition.kind == "top":
                return values, missing
            return self.condition.fails(values, ~missing), missing
        if not self.max_aspect:
            lacking = _lengths(table[self.columns[0]].cast(pyarrow.string())) == 0
            return lacking, lacking
        sides = np.stack([_values(table[name], as_words=False) for name in self.columns])
        short, long = sides.min(0), sides.max(0)
        fails = (short < self.min_side) | (long > self.max_aspect * short)
        return fails, np.isnan(short)

    def finish(self, judged: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """Which rows fail, given those that are left."""
        if self.condition is not None and self.condition.kind == "top":
            return self.condition.fails(judged, alive)
        return judged


def _rules(metadata: Metadata, wanted: Wanted) -> list[_Rule]:
    numbers = {*scores.NUMBERS, "width", "height"} & set(metadata.columns)
    words = set(scores.TEXTS) & set(metadata.columns)
    where = str(metadata.files[0])
    conditions.check_columns(wanted.conditions, numbers, words, where)
    rules = [_Rule("no address", ("url",))]
    if HASH in metadata.columns:
        rules.append(_Rule("no hash to verify", (HASH,)))
    if {"width", "height"} <= set(metadata.columns):
        rule = f"short side under {wanted.min_side} or sides over {wanted.max_aspect:.2f} : 1"
        rules.append(_Rule(rule, ("width", "height"), None, wanted.min_side, wanted.max_aspect))
    rules += [_Rule(str(c), (c.column,), c) for c in wanted.conditions]
    return rules


def _values(column: pyarrow.ChunkedArray, *, as_words: bool) -> np.ndarray:
    """float32 [n] or text [n]; NaN or "" where there is none."""
    if as_words:
        filled = pyarrow.compute.fill_null(column.cast(pyarrow.string()), "")
        return np.asarray(filled.to_pylist(), str)
    return column.cast(pyarrow.float32(), safe=False).to_numpy().astype(np.float32)


def _lengths(texts: pyarrow.ChunkedArray) -> np.ndarray:
    """int32 [n], 0 where there is no text."""
    lengths = pyarrow.compute.call_function("utf8_length", [texts])
    return pyarrow.compute.fill_null(lengths, 0).to_numpy()


def _field(field: pyarrow.Field) -> pyarrow.Field:
    if field.name in scores.NUMBERS:
        return field.with_type(pyarrow.float32())
    return field if field.name == BOXES else field.with_type(pyarrow.string())


def parquet_files(path: pathlib.Path) -> list[pathlib.Path]:
    """The files of a folder, by name, or the one file."""
    return sorted(path.rglob("*.parquet")) if path.is_dir() else [path]


def _opened(path: pathlib.Path) -> pyarrow.parquet.ParquetFile:
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        cause = "is not there" if isinstance(error, FileNotFoundError) else "is not parquet"
        raise UserError(f"--metadata: {path} {cause}") from error
