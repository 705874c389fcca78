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

from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from mtv_jax import cli
from mtv_jax.core.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:key=value,…]")
_COUNTS = flags.DEFINE_list("prototypes", ["8192", "32768", "65536"], "Numbers to try.")

_AT_ONCE = 1 << 20  # MiB: more than all scores


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    del argv
    config = cli.config_values(_CONFIG)
    if config is None:
        raise UserError("--config is missing; start with --config configs/mtv_b16.py:tasks=vl+ssl")
    heads = [o for o in config["objectives"].values() if "prototypes" in o]
    if not heads:
        raise UserError("no objective of this config has prototypes; add ssl to its tasks")
    print(f"{'prototypes':>10}  {'scores':>8}  {'temporaries':>14}  {'beyond':>14}", flush=True)
    for count in map(int, _COUNTS.value):
        for scores, block_mib in (("blocks", heads[0]["block_mib"]), ("at once", _AT_ONCE)):
            for head in heads:
                head.update(prototypes=count, block_mib=block_mib)
            total = _temporaries(config)
            beyond = total - sum(_growth(config, head) for head in heads)
            cells = f"{total / 2**20:,.1f} MiB", f"{beyond / 2**20:,.1f} MiB"
            print(f"{count:>10}  {scores:>8}  {cells[0]:>14}  {cells[1]:>14}", flush=True)
    return 0


def _temporaries(config: dict[str, Any]) -> int:
    """Bytes inside the compiled step."""
    from mtv_jax.assemble import System

    return System(config, trusted=tuple(cli.TRUST_ROOT.value)).memory_plan().temporaries


def _growth(config: dict[str, Any], head: dict[str, Any]) -> int:
    """Bytes of one head's float32 gradients, and of what its scores are multiplied with."""
    width = 2 if head["dtype"] == "bfloat16" else 4
    casts = 2 * width * head["bottleneck"] if width == 2 else 0
    return head["prototypes"] * (4 * (head["bottleneck"] + 1) + casts)


if __name__ == "__main__":
    cli.run(main)
