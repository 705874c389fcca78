# SPDX-License-Identifier: Apache-2.0
"""Whether the data that a config evaluates on is there, complete and as its distributor ships it.

    python -m tools.data.check_eval --config configs/eval/paper.py:imagenet=DIR,coco=DIR

One line for each evaluator: how many images, or what is missing and where to get it; then the
files that are missing. Nothing is evaluated, and only depth maps are decoded. Exit status 1 when
anything is wrong.
"""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ml_collections import config_flags

from mtv_jax import cli
from mtv_jax.core.errors import UserError

if TYPE_CHECKING:
    from input_pipeline.eval_data import EvalData
    from mtv_jax.evaluators.base import Evaluator

_CONFIG = config_flags.DEFINE_config_file("config", None, "Whose `evals` to check.")
_NAMED = 10  # missing files


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    del argv
    config = cli.config_values(_CONFIG)
    if config is None:
        raise UserError("--config is missing; start with configs/eval/paper.py:imagenet=DIR")
    from mtv_jax.assemble import named_objects

    evaluators = list(named_objects("evals", config["evals"], tuple(cli.TRUST_ROOT.value)))
    if not evaluators:
        raise UserError("the config has no evaluators; configs/eval/paper.py names data sets")
    return max([check(evaluator) for evaluator in evaluators])


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


if __name__ == "__main__":
    cli.run(main)
