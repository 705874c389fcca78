# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the data that an evaluator reads, in words."""

import dataclasses
from typing import TYPE_CHECKING

from mtv_jax.core.errors import UserError

if TYPE_CHECKING:
    from input_pipeline.layouts.base import Layout
    from mtv_jax.evaluators.base import Evaluator

_NAMED = 10  # files


def check(evaluator: "Evaluator") -> int:
    """Prints what is wrong with one evaluator's data; 1 if anything is."""
    error, details = None, []
    try:
        evaluator.check(())
    except UserError as caught:
        error = caught
    for layout in _layouts(evaluator):
        lines = _details(layout)
        details += lines
        if lines and error is None:
            error = layout.damaged(f"{len(lines):,} of its maps are damaged")
    if error is None:
        print(f"{evaluator.name}: {len(evaluator.data):,} images in {evaluator.data}", flush=True)
        return 0
    print(f"{evaluator.name}: {error}", flush=True)
    for line in details[:_NAMED]:
        print(f"    {line}")
    if len(details) > _NAMED:
        print(f"    and {len(details) - _NAMED:,} more")
    return 1


def _layouts(evaluator: "Evaluator") -> list["Layout"]:
    """The distributed sets that an evaluator reads."""
    from input_pipeline.layouts.base import Layout

    values = [getattr(evaluator, field.name) for field in dataclasses.fields(evaluator)]
    return [value for value in values if isinstance(value, Layout)]


def _details(layout: "Layout") -> list[str]:
    """Its missing files or, if there are none, its damaged maps; nothing if it cannot be listed."""
    try:
        missing = [f"missing {path}" for path in layout.missing()]
        return missing or list(layout.faults())
    except UserError:
        return []
