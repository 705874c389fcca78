# SPDX-License-Identifier: Apache-2.0
"""What streaming saves: memory of the whole step by number of prototypes, in blocks and at once.

    python -m tools.bench.prototypes \\
        --config configs/mtv_b16.py:tasks=vl+ssl+ground+depth --config.batch_size=64 \\
        --config.objectives.koleo.group_size=64 --prototypes 8192,32768,65536

The step is compiled, not run: the bytes are what the compiler of this backend plans for a device.
"at once" makes the scores of all rows in one block. "beyond" is what is left of the temporaries
without the gradients of the prototypes and their casts for student and teacher, which grow with
their number whatever is done.
"""

import functools
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from mtv_jax import cli
from mtv_jax.core.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:key=value,…]")
_COUNTS = flags.DEFINE_list("prototypes", ["8192", "32768", "65536"], "Numbers to try.")


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    del argv
    config = cli.config_values(_CONFIG)
    if config is None:
        raise UserError("--config is missing; start with --config configs/mtv_b16.py:tasks=vl+ssl")
    from tools.bench.microbatches import parse_counts
    from tools.bench.streaming import compiled_temporaries, measure

    counts = parse_counts(_COUNTS.value, _COUNTS.name)
    trusted = tuple(cli.TRUST_ROOT.value)
    print(f"{'prototypes':>10}  {'scores':>8}  {'temporaries':>14}  {'beyond':>14}", flush=True)
    for row in measure(config, counts, functools.partial(compiled_temporaries, trusted)):
        cells = [f"{number / 2**20:,.1f} MiB" for number in (row.temporaries, row.beyond)]
        print(f"{row.count:>10}  {row.scores:>8}  {cells[0]:>14}  {cells[1]:>14}", flush=True)
    return 0


if __name__ == "__main__":
    cli.run(main)
