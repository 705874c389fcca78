# SPDX-License-Identifier: Apache-2.0
"""`load(folder)`: an exported folder as a JAX encoder. JAX is imported with the first call."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtv_jax.interop.trained import TrainedEncoder


def load(directory: str | os.PathLike[str], *, trusted: Iterable[str] = ()) -> "TrainedEncoder":
    """The encoder in a folder that `mtv_jax.export` wrote; see `interop/loading.py`."""
    from mtv_jax.interop.loading import load_folder

    return load_folder(directory, trusted=trusted)
