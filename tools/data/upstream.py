# SPDX-License-Identifier: Apache-2.0
"""Rows that img2dataset lost before us: they are in the parquet beside a tar, not in the tar."""

import collections
import json
import pathlib
import sys
from collections.abc import Collection, Mapping
from typing import Any

_SUCCESS = "success"
_NOT_IN_TAR = "not_in_tar"


def lost_rows(archive: pathlib.Path, keys: Collection[str]) -> list[dict[str, Any]]:
    """The rows of the parquet beside `archive` that gave no sample.

    Args:
        archive: the tar.
        keys: keys of the samples in the tar.

    Returns:
        For each row its key, status (`not_in_tar` for a success whose sample is missing) and error;
        nothing where there is no parquet, or none that can be read.
    """
    path = archive.with_suffix(".parquet")
    if not path.exists():
        return []
    try:
        import pyarrow.parquet

        columns = ["key", "status", "error_message"]
        rows = pyarrow.parquet.read_table(path, columns=columns).to_pylist()
    except (ImportError, ValueError, KeyError, OSError) as error:
        print(f"note: {path} is not read ({error})", file=sys.stderr)
        return []
    lost = []
    for row in rows:
        if row["status"] != _SUCCESS or row["key"] not in keys:
            status = _NOT_IN_TAR if row["status"] == _SUCCESS else row["status"]
            lost.append({"key": row["key"], "status": status, "error": row["error_message"]})
    return lost


def to_line(row: Mapping[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(row, separators=(",", ":")) + "\n"


def count_statuses(lines: Collection[str]) -> dict[str, int]:
    """Rows by status."""
    return dict(collections.Counter(json.loads(line)["status"] for line in lines))
