# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the data that an evaluator reads, in words."""

import pathlib
from typing import TYPE_CHECKING

from mtv_jax.core.errors import UserError

if TYPE_CHECKING:
    from input_pipeline.eval_data import EvalData
    from mtv_jax.evaluators.base import Evaluator

_NAMED = 10  # missing files


def check(evaluator: "Evaluator") -> int:
    """Prints what is wrong with one evaluator's data; 1 if anything is."""
    data = evaluator.data
    try:
        evaluator.check(())
    except UserError as error:
        print(f"{evaluator.name}: {error}", flush=True)
        missing = _missing(data)
        for path in missing[:_NAMED]:
            print(f"    missing {path}")
        if len(missing) > _NAMED:
            print(f"    and {len(missing) - _NAMED:,} more")
        return 1
    print(f"{evaluator.name}: {len(data):,} images in {data}", flush=True)
    return 0


def _missing(data: "EvalData") -> list[pathlib.Path]:
    """Files of a data set whose records could be listed."""
    from input_pipeline.layouts.base import Layout

    try:
        return data.missing() if isinstance(data, Layout) else []
    except UserError:
        return []
