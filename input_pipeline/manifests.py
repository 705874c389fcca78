# SPDX-License-Identifier: Apache-2.0
"""The manifests of a store: which columns the base and each sidecar have, and how they were made.

A manifest is written when everything that it speaks of lies there: what has none does not exist.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from input_pipeline import files
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import Field

FORMAT = 1
BASE = "store.json"


class StoreError(UserError):
    """A store that is absent, incomplete or inconsistent; the message names the remedy."""


def write(
    path: pathlib.Path,
    manifest: dict[str, Any],
    fields: Iterable[Field],
    provenance: Mapping[str, Any],
) -> None:
    """Writes a manifest of `manifest`, the columns and how they were made."""
    content = {
        "format": FORMAT,
        **manifest,
        "fields": [field.to_json() for field in fields],
        "provenance": dict(provenance),
    }
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    files.write_atomically(path, text.encode() + b"\n")


def read_base(path: pathlib.Path) -> dict[str, Any]:
    """What the manifest of the store at `path` says.

    Raises:
        StoreError: no complete store there, or a damaged manifest.
    """
    try:
        return _load(path / BASE, ("name", "provenance", "shards", "fields"))
    except (FileNotFoundError, NotADirectoryError) as error:
        state = "is incomplete" if any(path.glob("*.tfrecord*")) else "is not there"
        raise StoreError(
            f"the store {path} {state} (no {BASE}): make it with `python -m "
            f"tools.data.ingest --input IMAGES --output {path}` or `python -m "
            f"tools.data.make_scenes --output {path}`"
        ) from error


def sidecars_in(path: pathlib.Path) -> tuple[str, ...]:
    """Names of the finished sidecars of the store at `path`."""
    try:
        names = set(os.listdir(path))  # once: there may be a hundred thousand
    except (FileNotFoundError, NotADirectoryError):
        return ()
    stems = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return tuple(sorted(stem for stem in stems if f"{stem}-00000.tfrecord" in names))


def read_sidecar(path: pathlib.Path, sidecar: str) -> dict[str, Any]:
    """What the manifest of a sidecar says.

    Raises:
        StoreError: no finished sidecar of that name, or a damaged manifest.
    """
    try:
        return _load(path / f"{sidecar}.json", ("fields", "provenance"))
    except FileNotFoundError as error:
        there = ", ".join(sidecars_in(path)) or "none"
        raise StoreError(
            f"the store {path} has no finished sidecar {sidecar!r} (it has: {there}); write it "
            "first (`python -m tools.data.depth_maps` for depth maps that you have, `python -m "
            "tools.data.regions` for boxes with phrases), or leave out the objective that reads it"
        ) from error


def _load(path: pathlib.Path, keys: Sequence[str]) -> dict[str, Any]:
    """A manifest that has `keys`; FileNotFoundError, NotADirectoryError where there is none."""
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] == FORMAT:
            return {key: manifest[key] for key in keys}
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StoreError(
            f"{path} cannot be read ({error!r}): restore it or make it again"
        ) from error
    raise StoreError(f"{path} has format {manifest['format']!r}, this version reads {FORMAT}")
