# SPDX-License-Identifier: Apache-2.0
"""What every kind of input has in common: samples, parts, and the files that `--input` names.

A kind of input is one module with one `Kind`, listed in `tools.data.inputs`: it says which files
are its own and makes parts of them. One part becomes one shard.
"""

import abc
import contextlib
import dataclasses
import glob
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtv_jax.core.errors import UserError
from tools.data import digests
from tools.data.upstream import LostRow

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".avif"}
)
CAPTION_SUFFIXES = (".txt", ".json")
CAPTION_COLUMNS = ("caption", "text", "title")  # of a table; the first that is there
MAX_IMAGE_BYTES = 64 << 20
MAX_TEXT_BYTES = 1 << 20
DEFAULT_SPLIT = "train"


@dataclasses.dataclass(frozen=True)
class Sample:
    """One sample as a source holds it.

    Attributes:
        key: its name in the source.
        image: the encoded image.
        text: its caption as the source holds it; None without one.
        metadata: content of its JSON file; None without one.
        refusal: why it cannot be taken as it is; "" when it can.
        values: what else a table or a data set says of it, by lower-case name.
    """

    key: str
    image: bytes = b""
    text: bytes | None = None
    metadata: bytes | None = None
    refusal: str = ""
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a quick look at one part tells: how many samples, and hashes of their keys."""

    samples: int
    key_hashes: np.ndarray


class BrokenPart(Exception):
    """Raised after the last sample that could be read; the message says where the part breaks."""


@dataclasses.dataclass(frozen=True)
class Part(abc.ABC):
    """What becomes one shard: a tar, a run of image files, one file of a table.

    Attributes:
        name: short and unique among the parts.
    """

    name: str

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Changes when a file of this part, one beside it that is read too, or a caption does."""

    @abc.abstractmethod
    def survey(self) -> Survey:
        """Counts the samples without reading an image; never raises over their content."""

    @abc.abstractmethod
    def samples(self) -> Iterator[Sample | LostRow]:
        """Every sample, and every row that was lost before; the same at every call.

        Raises:
            BrokenPart: after the last one, where the part could not be read to its end.
        """


@dataclasses.dataclass(frozen=True)
class Options:
    """How the user wants an input read; None is unsaid.

    Attributes:
        captions: a table of captions for a folder of images.
        rows_per_shard: length of a run of image files.
        caption_column: the column of captions.
        split: which split of a data set.
        keep_columns: lower-case names of the values that samples shall bring.
    """

    captions: pathlib.Path | None = None
    rows_per_shard: int = 1000
    caption_column: str | None = None
    split: str | None = None
    keep_columns: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name: what its files are called, in the plural.
        suffixes: of the files that it reads or knows, lower case; others are reported.
        claim: those among the sorted files of the input that are its own.
        parts: the parts of claimed files, below a folder.
        options: names of the `Options` that it obeys.
        settings: those of them that change what the store holds.
    """

    name: str
    suffixes: frozenset[str]
    claim: Callable[[Sequence[pathlib.Path]], list[pathlib.Path]]
    parts: Callable[[Sequence[pathlib.Path], pathlib.Path, Options], Sequence[Part]]
    options: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def fingerprint(name: str, paths: Iterable[pathlib.Path], texts: Iterable[str] = ()) -> str:
    """Changes when a name, a text, or a file does.

    A file is its name, size and time of change: that it is not there counts as well.
    """
    digest = hashlib.sha256(name.encode(errors="surrogateescape"))
    for path in paths:
        size, changed = -1, 0
        with contextlib.suppress(OSError):
            state = path.stat()
            size, changed = state.st_size, state.st_mtime_ns
        line = f"\n{path.name} {size} {changed}"
        digest.update(line.encode(errors="surrogateescape"))
    for text in texts:
        digest.update(f"\n{text}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def in_one_line(error: Exception) -> str:
    """What an error says; libraries may say it in several lines, or at great length."""
    return " ".join(str(error).split())[:300]


def hash_keys(keys: Iterable[str]) -> np.ndarray:
    """Eight bytes for each key: uint64 [n]."""
    return digests.of_each(key.encode(errors="surrogateescape") for key in keys)


def row_key(row: int) -> str:
    """The key of a sample that has none of its own: its row in its part."""
    return f"{row:08d}"


def short_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """The stems of the paths or, where stems repeat, the paths below the folder they share."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else unique_names(paths)


def input_folder(pattern: str) -> pathlib.Path:
    """The folder that a path or a glob pattern starts from."""
    path = pathlib.Path(pattern)
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def find_files(pattern: str) -> list[pathlib.Path]:
    """The files that a path, a folder or a glob pattern names, sorted; none that is hidden.

    Raises:
        UserError: a folder cannot be read.
    """
    roots = [pathlib.Path(path) for path in glob.glob(pattern, recursive=True)]
    if os.path.exists(pattern):  # a real path may hold characters that mean something to glob
        roots = [pathlib.Path(pattern)]
    return sorted({path for root in roots for path in _walk(root)})


def unique_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """The paths relative to the folder they share."""
    root = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(root).as_posix() for path in paths]


def _walk(root: pathlib.Path) -> Iterable[pathlib.Path]:
    if not root.is_dir():
        yield root
        return
    seen = set()  # a folder may be linked to from below itself
    for folder, below, names in os.walk(root, followlinks=True, onerror=_refuse):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (pathlib.Path(folder, name) for name in names if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise UserError(f"--input: cannot read {error.filename}: {error.strerror}") from error
