# SPDX-License-Identifier: Apache-2.0
"""Whether the data that a config evaluates on is there, complete and as its distributor ships it.

    python -m tools.data.check_eval --config configs/eval/paper.py:imagenet=DIR,coco=DIR

One line for each evaluator: how many images, or what is missing and where to get it; then the
files that are missing or, if none is, the maps that are damaged. Nothing is evaluated, and of files
only maps of depth and segments are decoded. Exit status 1 when anything is wrong.
"""

from collections.abc import Sequence

from ml_collections import config_flags

from mtv_jax import cli
from mtv_jax.core.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Whose `evals` to check.")


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    del argv
    config = cli.config_values(_CONFIG)
    if config is None:
        raise UserError("--config is missing; start with configs/eval/paper.py:imagenet=DIR")
    from mtv_jax.assemble import named_objects
    from tools.data.eval_checks import check

    evaluators = list(named_objects("evals", config["evals"], tuple(cli.TRUST_ROOT.value)))
    if not evaluators:
        raise UserError("the config has no evaluators; configs/eval/paper.py names data sets")
    return max([check(evaluator) for evaluator in evaluators])


if __name__ == "__main__":
    cli.run(main)
