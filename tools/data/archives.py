# SPDX-License-Identifier: Apache-2.0
"""Samples out of a webdataset tar, as img2dataset and others write them.

A sample is all members that share a name up to the first dot. Nothing is ever extracted to disk,
and a member that is a link, a device, oversized or named to climb out of a folder makes its sample
a refused one. The headers are read first, so members may come in any order, in any dialect
(USTAR, PAX, GNU), and a tar that breaks off gives the samples before the break.
"""

import dataclasses
import pathlib
import tarfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from input_pipeline import files
from tools.data import sources, upstream
from tools.data.sources import CAPTION_SUFFIXES, IMAGE_SUFFIXES, MAX_IMAGE_BYTES, MAX_TEXT_BYTES

_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class Extent:
    """Where the content of a member lies in its tar."""

    offset: int
    size: int


@dataclasses.dataclass
class Entry:
    """One sample of a tar: where its members lie, by lower-case suffix, and why it is refused."""

    key: str
    members: dict[str, Extent] = dataclasses.field(default_factory=dict)
    refusal: str = ""


@dataclasses.dataclass(frozen=True)
class Archive:
    """The contents of a tar: its samples in order, and where it breaks off ("" when whole)."""

    path: pathlib.Path
    entries: list[Entry]
    broken: str


def scan_archive(path: pathlib.Path) -> Archive:
    """Reads the headers of a tar; never raises over its content."""
    entries: list[Entry] = []
    current: dict[str, Entry] = {}
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        walk = _Walk(file, size)
        for member in walk.members():
            _add(member, size, entries, current)
    if walk.broken and entries:
        last = entries[-1]
        whole = any(suffix in last.members for suffix in CAPTION_SUFFIXES)
        last.refusal = last.refusal or ("" if whole else "archive_cut")
    return Archive(path, entries, walk.broken)


def read_samples(archive: Archive) -> Iterator[sources.Sample]:
    """The samples of a scanned tar, in its order."""
    file = files.ReadOnlyFile(archive.path)
    for entry in archive.entries:
        image = next((s for s in entry.members if s in IMAGE_SUFFIXES), None)
        refusal = entry.refusal or ("" if image else "no_image")
        if refusal:
            yield sources.Sample(entry.key, refusal=refusal)
            continue
        content = {
            suffix: file.pread(extent.size, extent.offset)
            for suffix, extent in entry.members.items()
            if suffix == image or suffix in CAPTION_SUFFIXES
        }
        yield sources.Sample(entry.key, content[image], content.get(".txt"), content.get(".json"))


@dataclasses.dataclass(frozen=True)
class ArchivePart(sources.Part):
    """A tar, with the parquet that img2dataset writes beside it."""

    path: pathlib.Path

    def fingerprint(self) -> str:
        return sources.fingerprint(self.name, [self.path, self.path.with_suffix(".parquet")])

    def survey(self) -> sources.Survey:
        entries = scan_archive(self.path).entries
        keys = {entry.key for entry in entries if not entry.refusal}
        return sources.Survey(len(entries), sources.hash_keys(keys))

    def samples(self) -> Iterator[sources.Sample | upstream.LostRow]:
        archive = scan_archive(self.path)
        yield from read_samples(archive)
        yield from upstream.lost_rows(self.path, {entry.key for entry in archive.entries})
        if archive.broken:
            raise sources.BrokenPart(archive.broken)


def _claim(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    return [path for path in paths if path.suffix.lower() == ".tar"]


def _parts(
    paths: Sequence[pathlib.Path], root: pathlib.Path, options: sources.Options
) -> list[ArchivePart]:
    return list(map(ArchivePart, sources.short_names(paths), paths))


KIND = sources.Kind(
    "tars", frozenset({".tar", ".parquet", *CAPTION_SUFFIXES}), claim=_claim, parts=_parts
)


class _Walk:
    """The members of a tar up to its end or its break."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self.broken = ""

    def members(self) -> Iterator[tarfile.TarInfo]:
        """The headers in order; afterwards `broken` says where they break off, if they do."""
        position = -1
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    if archive.offset <= position:
                        self.broken = f"its headers run backwards at byte {archive.offset}"
                        return
                    position = archive.offset
                    archive.members.clear()  # tarfile would keep every header
                    yield member
                position = archive.offset
        except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
            at = min(max(position, 0), self._size)
            self.broken = f"broken at byte {at} of {self._size} ({error})"
            return
        self._file.seek(position)
        if self._file.read(_BLOCK) != bytes(_BLOCK):
            self.broken = f"no end of archive: broken at byte {position} of {self._size}"


def _add(
    member: tarfile.TarInfo, size: int, entries: list[Entry], current: dict[str, Entry]
) -> None:
    """Files `member` under its sample, opening a new one where it starts one."""
    if member.isdir():
        return
    name = member.name.removeprefix("./")
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    key, suffix = folder + slash + stem, (dot + suffix).lower()
    entry = current.get(key)
    if entry is None or suffix in entry.members:
        entry = Entry(key, refusal="" if entry is None else "duplicate_key")
        entries.append(entry)
        current[key] = entry
    entry.members[suffix] = Extent(member.offset_data, member.size)
    entry.refusal = entry.refusal or _refusal(member, suffix, size)


def _refusal(member: tarfile.TarInfo, suffix: str, archive_size: int) -> str:
    path = member.name.replace("\\", "/")
    if path.startswith("/") or path[1:2] == ":" or ".." in path.split("/"):
        return "unsafe_path"
    if not member.isreg() or member.issparse():
        return "not_a_file"
    text, image = suffix in CAPTION_SUFFIXES, suffix in IMAGE_SUFFIXES
    if (text and member.size > MAX_TEXT_BYTES) or (image and member.size > MAX_IMAGE_BYTES):
        return "oversize_member"
    if member.offset_data + member.size > archive_size:
        return "archive_cut"
    return ""
