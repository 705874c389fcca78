# SPDX-License-Identifier: Apache-2.0
"""A few made scenes with all their labels, for the readers and what is measured on them."""

import pathlib

from tools.scenes.writer import Settings, write_stores

SCENES = 41  # no multiple of a batch


def scene_store(root: pathlib.Path) -> pathlib.Path:
    """The store of test scenes, some of them wider or higher than 64 pixels."""
    write_stores(root, Settings(train=1, test=SCENES, size=64), workers=1)
    return root / "test"
