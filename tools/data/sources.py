# SPDX-License-Identifier: Apache-2.0
"""What `--input` means: which files are read, as which shards, and what one sample of them is."""

import dataclasses
import glob
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

from mtv_jax.core.errors import UserError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".avif"}
)
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
        """Changes when other files, other sizes or other captions make up this part."""
        digest = hashlib.sha256(self.name.encode(errors="surrogateescape"))
        for path in [self.archive] if self.archive else [image.path for image in self.images]:
            digest.update(f"\n{path.name} {path.stat().st_size}".encode(errors="surrogateescape"))
        for image in self.images:
            digest.update(f"\n{image.key} {image.caption}".encode(errors="surrogateescape"))
        return digest.hexdigest()[:16]


def find_files(pattern: str) -> list[pathlib.Path]:
    """The tars, or else the images, that a path, a folder or a glob pattern names, sorted.

    Raises:
        UserError: nothing matches, or tars and images both do.
    """
    roots = [pathlib.Path(path) for path in glob.glob(pattern, recursive=True)]
    if os.path.exists(pattern):  # a real path may hold characters that mean something to glob
        roots = [pathlib.Path(pattern)]
    found = sorted({path for root in roots for path in _walk(root)})
    archives = [path for path in found if path.suffix.lower() == ".tar"]
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
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
    if root.is_file():
        yield root
    for folder, _, names in os.walk(root):
        yield from (pathlib.Path(folder, name) for name in names if not name.startswith("."))
