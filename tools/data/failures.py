# SPDX-License-Identifier: Apache-2.0
"""The images that did not arrive: a ledger, its sums, and lists for another try."""

import collections
import math
import pathlib
from collections.abc import Iterator

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from mtv_jax.core.errors import UserError
from tools.data import download, fetch_reasons

LEDGER = "failures.parquet"
_SCHEMA = pyarrow.schema(
    [(name, pyarrow.string()) for name in ("url", "key", "status", "error_message", "reason")]
)


def write_ledger(folder: pathlib.Path) -> collections.Counter[str]:
    """Writes `folder`/failures.parquet out of the parquets of the shards; counts by reason."""
    counts: collections.Counter[str] = collections.Counter()
    temporary = folder / f".{LEDGER}.tmp"
    with pyarrow.parquet.ParquetWriter(temporary, _SCHEMA) as writer:
        for table in _failed(folder):
            reasons = [fetch_reasons.reason(text) for text in table["error_message"].to_pylist()]
            counts.update(reasons)
            writer.write_table(table.append_column("reason", pyarrow.array(reasons)).cast(_SCHEMA))
    temporary.replace(folder / LEDGER)
    return counts


def rows_to_retry(folder: pathlib.Path, shard_rows: int) -> np.ndarray:
    """Rows of the lists of `folder` that another try may bring: int64, sorted.

    A key is the number of the shard followed by that of the row in it.
    """
    table = pyarrow.parquet.read_table(folder / LEDGER, columns=["key", "error_message"])
    again = [fetch_reasons.is_transient(text) for text in table["error_message"].to_pylist()]
    keys = np.array([int(key) for key in table["key"].to_pylist()], np.int64)[np.array(again, bool)]
    digits = 10 ** math.ceil(math.log10(shard_rows))
    return np.sort(keys // digits * shard_rows + keys % digits)


def lists(folder: pathlib.Path) -> Iterator[pyarrow.Table]:
    """The lists that `folder` was fetched from, part by part."""
    for path in sorted((folder / "fetch" / "urls").glob("*.parquet")):
        file = pyarrow.parquet.ParquetFile(path)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def chosen(folder: pathlib.Path, rows: np.ndarray) -> Iterator[pyarrow.Table]:
    """The rows (sorted) of the lists of `folder`."""
    start = 0
    for table in lists(folder):
        inside = rows[(rows >= start) & (rows < start + len(table))] - start
        start += len(table)
        if len(inside):
            yield table.take(pyarrow.array(inside))


def _failed(folder: pathlib.Path) -> Iterator[pyarrow.Table]:
    for name in download.finished(folder):
        path = folder / f"{name}.parquet"
        try:
            table = pyarrow.parquet.read_table(path, columns=list(_SCHEMA.names[:-1]))
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(
                f"{path} cannot be read: delete {folder / name}{download.STATS} and give the same "
                "command again, which fetches this shard anew"
            ) from error
        yield table.filter(pyarrow.compute.field("status") != "success")
