# SPDX-License-Identifier: Apache-2.0
"""Rows that img2dataset lost before us: they are in the parquet beside a tar, not in the tar."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Collection

SUCCESS = "success"
_NOT_IN_TAR = "not_in_tar"


@dataclasses.dataclass(frozen=True)
class LostRow:
    """A row that gave no sample: its key, status and error."""

    key: str
    status: str
    error: str | None

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":")) + "\n"


def lost_rows(archive: pathlib.Path, keys: Collection[str]) -> list[LostRow]:
    """The rows of the parquet beside `archive` that gave no sample.

    Args:
        archive: the tar.
        keys: keys of the samples in the tar.

    Returns:
        Their status is `not_in_tar` for a success whose sample is missing. Nothing where there is
        no parquet, or none that can be read.
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
        if row["status"] != SUCCESS or row["key"] not in keys:
            status = _NOT_IN_TAR if row["status"] == SUCCESS else row["status"]
            lost.append(LostRow(row["key"], status, row["error_message"]))
    return lost
