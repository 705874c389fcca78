# SPDX-License-Identifier: Apache-2.0
"""The phrases of one column, and how often each occurs, as a text file.

One line a phrase: `phrase<TAB>count`, UTF-8, most frequent first, ties in alphabetical order.
White space inside a phrase (tabs and newlines too) becomes single spaces; phrases of nothing else
are left out.
"""

import pathlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from input_pipeline import example, files, tfrecord


def table_path(directory: pathlib.Path, holder: str, column: str) -> pathlib.Path:
    """Where a store keeps the phrases of a column of the base or of a sidecar."""
    return directory / f"{holder}.{column}.tsv"


def count(paths: Iterable[pathlib.Path], columns: Collection[str]) -> dict[str, Counter[str]]:
    """The phrases of `columns` in whole shards, each record read once.

    Raises:
        ValueError: a record that cannot be trusted, or a phrase that is not UTF-8 text.
    """
    counts: dict[str, Counter[str]] = {column: Counter() for column in columns}
    for path in paths if columns else ():
        records = tfrecord.RecordFile(path)
        for row in range(len(records)):
            try:
                for column, values in example.decode(records[row], columns).items():
                    counts[column].update(_texts(values))
            except tfrecord.RecordError:  # says where
                raise
            except ValueError as error:
                raise ValueError(f"{path}: row {row}: {error}") from error
    return counts


def _texts(values: example.Column) -> list[str]:
    if isinstance(values, list):
        return [value.decode() for value in values]
    raise ValueError("numbers in place of phrases")


def write(path: pathlib.Path, counts: Mapping[str, int]) -> None:
    """Writes the file; phrases that differ only in white space are one."""
    merged: Counter[str] = Counter()
    for phrase, number in counts.items():
        merged[" ".join(phrase.split())] += number
    del merged[""]
    ranked = sorted(merged.items(), key=lambda item: (-item[1], item[0]))
    lines = (f"{phrase}\t{number}\n" for phrase, number in ranked)
    files.write_atomically(path, "".join(lines).encode())


def read(path: pathlib.Path) -> dict[str, int]:
    """Count by phrase, in the order of the file.

    Raises:
        OSError: no such file.
        ValueError: it is damaged.
    """
    counts: dict[str, int] = {}
    *lines, rest = path.read_bytes().decode().split("\n")
    for number, line in enumerate(lines, 1):
        phrase, _, times = line.partition("\t")
        if not phrase or phrase in counts or not times.isdecimal():
            raise ValueError(f"line {number} is not a new phrase and its count")
        counts[phrase] = int(times)
    if rest:
        raise ValueError("it is cut short")
    return counts
