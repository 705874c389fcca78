# SPDX-License-Identifier: Apache-2.0
"""Holds out random rows of a store: `python -m tools.data.split STORE --heldout 512`.

Writes the selections `train` and `heldout`, which together are the store. Which rows are held out
depends on the number of rows, --heldout and --seed alone.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from input_pipeline.order import permute
from input_pipeline.store import Store, write_selection
from mtv_jax.core.errors import UserError, report_user_errors


def heldout_rows(num_rows: int, count: int, seed: int) -> np.ndarray:
    """`count` distinct rows of `num_rows`: uint64, sorted.

    Raises:
        UserError: nothing would be left on one of the sides.
    """
    if not 0 < count < num_rows:
        raise UserError(f"cannot hold out {count} of {num_rows} rows; want 1 to {num_rows - 1}")
    return np.sort(np.array([permute(i, num_rows, seed) for i in range(count)], np.uint64))


@report_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tools.data.split", description=__doc__)
    parser.add_argument("store", type=pathlib.Path)
    parser.add_argument("--heldout", type=int, required=True, help="rows held out")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other rows")
    parsed = parser.parse_args(arguments)
    num_rows = Store.open(parsed.store).num_rows
    heldout = heldout_rows(num_rows, parsed.heldout, parsed.seed)
    train = np.setdiff1d(np.arange(num_rows, dtype=np.uint64), heldout, assume_unique=True)
    for name, rows in (("train", train), ("heldout", heldout)):
        write_selection(parsed.store, name, rows)
        print(f"{parsed.store}: {name}, {len(rows):,} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
