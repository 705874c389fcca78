# SPDX-License-Identifier: Apache-2.0
"""What tools share that write labels a user has as a sidecar: may it be, and put it in place."""

import os
import pathlib
import re

from input_pipeline.store import Store
from mtv_jax.core.errors import UserError


def check_new(path: pathlib.Path, sidecar: str, *, overwrite: bool) -> None:
    """Refuses what cannot be written, before any work.

    Args:
        path: the store.
        sidecar: name of what is to be written.
        overwrite: whether one of that name may be replaced.

    Raises:
        UserError: a store without image sizes, a bad name, or one that is taken.
    """
    if not {"height", "width"} <= set(Store.open(path).fields):
        raise UserError(f"{path} has no columns height and width: make it with tools.data.ingest")
    if not re.fullmatch(r"\w+_v[0-9]+", sidecar, re.ASCII):
        raise UserError(f"--sidecar {sidecar}: want a name and a version, such as depth_v2")
    if (path / f"{sidecar}.json").exists() and not overwrite:
        raise UserError(
            f"{path} has a sidecar {sidecar} already: name another with --sidecar, or replace it "
            "with --overwrite"
        )


def clear(path: pathlib.Path, sidecar: str) -> None:
    """Removes a sidecar, its manifest first."""
    (path / f"{sidecar}.json").unlink(missing_ok=True)
    for old in (*path.glob(f"{sidecar}-*.tfrecord*"), *path.glob(f"{sidecar}-*.funnel.json")):
        old.unlink()


def move_in(path: pathlib.Path, folder: str | os.PathLike[str]) -> None:
    """Moves the shards in `folder` into the store; the manifest is next."""
    for name in sorted(os.listdir(folder)):
        os.replace(pathlib.Path(folder, name), path / name)
