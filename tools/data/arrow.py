# SPDX-License-Identifier: Apache-2.0
"""Samples out of the folder that `save_to_disk` of Hugging Face's `datasets` writes.

It holds `data-00000-of-00002.arrow` and so on, each an Arrow IPC stream, and a `state.json` that
names them; of several splits each has such a folder, beside `dataset_dict.json`.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence

import pyarrow as pa

from tools.data import sources, tables

_FILE_MAGIC = b"ARROW1"


@dataclasses.dataclass(frozen=True)
class ArrowPart(tables.TablePart):
    """One IPC stream."""

    def schema(self) -> pa.Schema:
        return _open(self.path).schema

    def pieces(self, names: list[str]) -> Iterator[pa.RecordBatch | tables.Damage]:
        for batch in _open(self.path):
            chosen = batch.select(names)
            try:
                chosen.validate(full=True)  # offsets that lead astray would crash the process
            except tables.DAMAGE as error:
                yield tables.Damage(batch.num_rows, sources.in_one_line(error))
                continue
            for start in range(0, batch.num_rows, tables.ROWS_AT_ONCE):
                yield chosen.slice(start, tables.ROWS_AT_ONCE)


def _open(path: pathlib.Path) -> pa.RecordBatchStreamReader:
    file = pa.memory_map(str(path))
    if file.read(len(_FILE_MAGIC)) == _FILE_MAGIC:
        raise pa.ArrowInvalid("an Arrow file, not a stream as `save_to_disk` writes it")
    file.seek(0)
    return pa.ipc.open_stream(file)


def _claim(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    found = [path for path in paths if path.suffix.lower() == ".arrow"]
    listed = {folder: _listed(folder) for folder in {path.parent for path in found}}
    return [path for path in found if path.name in (listed[path.parent] or {path.name})]


def _listed(folder: pathlib.Path) -> set[str]:
    """The files that a `state.json` names: caches of `map` and `filter` may lie beside them."""
    try:
        state = json.loads((folder / "state.json").read_bytes())
        return {file["filename"] for file in state["_data_files"]}
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _parts(
    paths: Sequence[pathlib.Path], root: pathlib.Path, options: sources.Options
) -> list[ArrowPart]:
    return tables.make_parts(ArrowPart, paths, options)


KIND = sources.Kind(
    "arrow files",
    frozenset({".arrow", ".json"}),
    claim=_claim,
    parts=_parts,
    options=("caption_column", "split"),
    settings=("caption_column",),
)
