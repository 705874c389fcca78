# SPDX-License-Identifier: Apache-2.0
"""Samples out of parquet files: img2dataset's `output_format="parquet"`, Hugging Face data sets.

A parquet beside tars or beside image files is metadata, not a source.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet

from tools.data import archives, folders, sources, tables

_BUFFER_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class ParquetPart(tables.TablePart):
    """One parquet file."""

    def schema(self) -> pa.Schema:
        return _open(self.path).schema_arrow

    def pieces(self, names: list[str]) -> Iterator[pa.RecordBatch | tables.Damage]:
        file = _open(self.path)
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            try:
                for batch in file.iter_batches(
                    tables.ROWS_AT_ONCE, [group], names, use_threads=False
                ):
                    rows -= batch.num_rows
                    yield batch
            except tables.DAMAGE as error:
                believable = min(max(rows, 0), self.path.stat().st_size)  # it may be damaged too
                yield tables.Damage(believable, sources.in_one_line(error))


def _open(path: pathlib.Path) -> pyarrow.parquet.ParquetFile:
    return pyarrow.parquet.ParquetFile(
        path, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
    )


def _claim(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    found = [path for path in paths if path.suffix.lower() == ".parquet"]
    if archives.KIND.claim(paths):
        return []
    return found if not folders.KIND.claim(paths) or any(map(_holds_images, found)) else []


def _holds_images(path: pathlib.Path) -> bool:
    try:
        return tables.holds_images(_open(path).schema_arrow)
    except tables.DAMAGE:
        return False


def _parts(
    paths: Sequence[pathlib.Path], root: pathlib.Path, options: sources.Options
) -> list[ParquetPart]:
    return tables.make_parts(ParquetPart, paths, options)


KIND = sources.Kind(
    "parquet files",
    frozenset({".parquet"}),
    claim=_claim,
    parts=_parts,
    options=("caption_column", "split"),
    settings=("caption_column",),
)
