# SPDX-License-Identifier: Apache-2.0
"""What `--input` means: which files are read, as which shards, and what one sample of them is."""

import collections
import contextlib
import dataclasses
import glob
import hashlib
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence

from mtv_jax.core.errors import UserError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".avif"}
)
CAPTION_SUFFIXES = (".txt", ".json")
_BESIDE_SUFFIXES = (*CAPTION_SUFFIXES, ".csv", ".tsv", ".parquet")
MAX_IMAGE_BYTES = 64 << 20
MAX_TEXT_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Sample:
    """One sample as a source holds it.

    Attributes:
        key: its name in the source.
        image: the encoded image.
        text: content of its caption file; None without one.
        metadata: content of its JSON file; None without one.
        refusal: why it cannot be taken as it is; "" when it can.
    """

    key: str
    image: bytes = b""
    text: bytes | None = None
    metadata: bytes | None = None
    refusal: str = ""


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """An image of a folder: its path, its key, and its caption where a table gives one."""

    path: pathlib.Path
    key: str
    caption: str | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """What becomes one shard: a tar, or a run of image files.

    Attributes:
        name: short and unique among the parts.
        archive: the tar; None for image files.
        images: the image files; empty for a tar.
    """

    name: str
    archive: pathlib.Path | None = None
    images: tuple[ImageFile, ...] = ()

    def fingerprint(self) -> str:
        """Changes when a file of this part, one beside it that is read too, or a caption does.

        A file is its name, size and time of change: that it is not there counts as well.
        """
        if self.archive:
            paths = [self.archive, self.archive.with_suffix(".parquet")]
        else:
            paths = [
                path
                for image in self.images
                for path in (image.path, *map(image.path.with_suffix, CAPTION_SUFFIXES))
            ]
        digest = hashlib.sha256(self.name.encode(errors="surrogateescape"))
        for path in paths:
            size, changed = -1, 0
            with contextlib.suppress(OSError):
                state = path.stat()
                size, changed = state.st_size, state.st_mtime_ns
            line = f"\n{path.name} {size} {changed}"
            digest.update(line.encode(errors="surrogateescape"))
        for image in self.images:
            digest.update(f"\n{image.key} {image.caption}".encode(errors="surrogateescape"))
        return digest.hexdigest()[:16]


def input_folder(pattern: str) -> pathlib.Path:
    """The folder that a path or a glob pattern starts from."""
    path = pathlib.Path(pattern)
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def find_files(pattern: str) -> list[pathlib.Path]:
    """The tars, or else the images, that a path, a folder or a glob pattern names, sorted.

    Hidden files and folders are left alone; files of other kinds are counted on stderr.

    Raises:
        UserError: nothing matches, tars and images both do, or a folder cannot be read.
    """
    roots = [pathlib.Path(path) for path in glob.glob(pattern, recursive=True)]
    if os.path.exists(pattern):  # a real path may hold characters that mean something to glob
        roots = [pathlib.Path(pattern)]
    found = sorted({path for root in roots for path in _walk(root)})
    archives = [path for path in found if path.suffix.lower() == ".tar"]
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
    suffixes = collections.Counter(path.suffix.lower() for path in found)
    _report_others(pattern, suffixes)
    if archives and images:
        raise UserError(
            f"--input {pattern} holds both tars ({archives[0]}) and images ({images[0]}): "
            "name one kind, for example 'DIR/*.tar'"
        )
    if not archives and not images:
        raise UserError(
            f"--input {pattern} matches no .tar and no image "
            f"({' '.join(sorted(IMAGE_SUFFIXES))}): check the path"
        )
    return archives or images


def archive_parts(archives: Sequence[pathlib.Path]) -> list[Part]:
    """One part a tar, named by its stem or, where stems repeat, by its path."""
    stems = [path.stem for path in archives]
    names = stems if len(set(stems)) == len(stems) else unique_names(archives)
    return [Part(name, archive=path) for name, path in zip(names, archives, strict=True)]


def image_parts(images: Sequence[ImageFile], rows_per_shard: int) -> list[Part]:
    """Runs of `rows_per_shard` image files, each named by its first key."""
    starts = range(0, len(images), rows_per_shard)
    runs = [tuple(images[start : start + rows_per_shard]) for start in starts]
    return [Part(run[0].key, images=run) for run in runs]


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


def _report_others(pattern: str, suffixes: Mapping[str, int]) -> None:
    """Says how many files are neither tars nor images nor go with them."""
    known = {".tar", *IMAGE_SUFFIXES, *_BESIDE_SUFFIXES}
    others = {suffix: count for suffix, count in suffixes.items() if suffix not in known}
    if others:
        listed = [f"{others[suffix]:,} {suffix or 'without suffix'}" for suffix in sorted(others)]
        print(f"note: {pattern}: passed over {', '.join(listed)}", file=sys.stderr)
