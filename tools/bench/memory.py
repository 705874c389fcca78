# SPDX-License-Identifier: Apache-2.0
"""What micro-batches save: memory, loss and gradient of one fake batch, cut ever finer.

    python -m tools.bench.memory --config configs/quickstart.py:tasks=vl+depth \
        --micro_batches 1,2,8 [--compile_only | --topology v5e:2x2]

Loss and gradient alone are compiled, without optimiser: arguments are parameters and batch. Memory
is what the compiler plans for a device: of this backend, or of a TPU that is not here (it needs the
wheels of requirements-tpu.txt). Loss and gradient differ from those of the
first count by the order of additions only; the depth loss, which sorts and takes absolute values,
answers a change of one last digit in the parameters with 1e-4 of its gradient.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from mtv_jax import cli
from mtv_jax.core.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:key=value,…]")
_COUNTS = flags.DEFINE_list("micro_batches", ["1", "2", "8"], "Numbers of micro-batches to try.")
_COMPILE_ONLY = flags.DEFINE_bool("compile_only", False, "Neither loss nor gradient.")
_TOPOLOGY = flags.DEFINE_string(
    "topology", "", "Compile for one chip of a TPU, as v5e:2x2; no run."
)

_HEADINGS = ("micro-batches", "temporaries", "peak", "loss", "gradient differs by")


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    del argv
    config = cli.config_values(_CONFIG)
    if config is None:
        raise UserError("--config is missing; start with --config configs/quickstart.py")
    from mtv_jax.assemble import System
    from mtv_jax.dist.aot import topology_devices
    from tools.bench.microbatches import measure, parse_counts

    counts = parse_counts(_COUNTS.value)
    trusted = tuple(cli.TRUST_ROOT.value)
    devices = topology_devices("tpu", _TOPOLOGY.value)[:1] if _TOPOLOGY.value else None
    systems = [
        System({**config, "micro_batches": count}, trusted=trusted, devices=devices)
        for count in counts
    ]
    print("  ".join(f"{heading:>{_width(heading)}}" for heading in _HEADINGS), flush=True)
    for row in measure(systems, compile_only=_COMPILE_ONLY.value or bool(devices)):
        cells = zip(_HEADINGS, row.cells(), strict=True)
        print("  ".join(f"{cell:>{_width(heading)}}" for heading, cell in cells), flush=True)
    return 0


def _width(heading: str) -> int:
    return max(len(heading), 14)


if __name__ == "__main__":
    cli.run(main)
