# SPDX-License-Identifier: Apache-2.0
"""What `--input` means: which kind of source it is, and the parts that become shards."""

import collections
import dataclasses
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from mtv_jax.core.errors import UserError
from tools.data import archives, arrow, folders, parquet, sources, tfds

KINDS = (archives.KIND, folders.KIND, parquet.KIND, arrow.KIND, tfds.KIND)
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_NUMBERED = re.compile(r"-\d+-of-\d+$")


@dataclasses.dataclass(frozen=True)
class Input:
    """What is read: the shards to be, and the options that change what they will hold."""

    parts: Sequence[sources.Part]
    settings: dict[str, Any]


def find(pattern: str, options: sources.Options) -> Input:
    """The input that a path, a folder or a glob pattern names.

    Raises:
        UserError: nothing is there, things of two kinds are, or an option goes with another kind.
    """
    paths = sources.find_files(pattern)
    claims = {kind.name: kind.claim(paths) for kind in KINDS}
    found = [kind for kind in KINDS if claims[kind.name]]
    _report_others(pattern, paths)
    if not found:
        raise UserError(_nothing(pattern))
    if len(found) > 1:
        one, other = (f"{kind.name} ({claims[kind.name][0]})" for kind in found[:2])
        raise UserError(
            f"--input {pattern} holds both {one} and {other}: name one kind, for example "
            "'DIR/*.tar'"
        )
    (kind,) = found
    for name in ("captions", "rows_per_shard", "caption_column", "split"):
        said = getattr(options, name) != getattr(sources.Options(), name)
        if said and name not in kind.options:
            obeying = " or ".join(kind.name for kind in KINDS if name in kind.options)
            raise UserError(f"--{name} goes with {obeying}; --input {pattern} holds {kind.name}")
    parts = kind.parts(claims[kind.name], sources.input_folder(pattern), options)
    return Input(parts, {name: getattr(options, name) for name in kind.settings})


def _nothing(pattern: str) -> str:
    if _HUB_NAME.fullmatch(pattern) and not pathlib.Path(pattern).exists():
        return (
            f"--input {pattern} is no path; if it is a data set of the Hugging Face hub, run "
            f"`hf download --repo-type dataset {pattern} --local-dir DIR`, then give --input DIR"
        )
    return (
        f"--input {pattern} matches no .tar and no image "
        f"({' '.join(sorted(sources.IMAGE_SUFFIXES))}), no .parquet or .arrow with images, and no "
        "folder that TFDS prepared: check the path"
    )


def _report_others(pattern: str, paths: Sequence[pathlib.Path]) -> None:
    """Says how many files no kind of source knows."""
    known = frozenset[str]().union(*(kind.suffixes for kind in KINDS))
    suffixes = (pathlib.Path(_NUMBERED.sub("", path.name)).suffix.lower() for path in paths)
    others = collections.Counter(suffix for suffix in suffixes if suffix not in known)
    if others:
        listed = [f"{others[suffix]:,} {suffix or 'without suffix'}" for suffix in sorted(others)]
        print(f"note: {pattern}: passed over {', '.join(listed)}", file=sys.stderr)
