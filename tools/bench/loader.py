# SPDX-License-Identifier: Apache-2.0
"""Times the host pipeline alone: reading, decoding and tokenising, without a model.

    python -m tools.bench.loader --config configs/quickstart.py [--workers 0,2] [--demand 5000]

First each stage by itself in one process, in training order; then whole batches by number of
worker processes. Every rate is compared with what the training step takes: `--demand` images/s,
by default measured here (`tools.bench.step`, on the same machine but not at the same time).
"""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_flags

from mtv_jax import cli
from mtv_jax.core.errors import UserError

if TYPE_CHECKING:
    from mtv_jax.assemble import System

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:key=value,…]")
_WORKERS = flags.DEFINE_list("workers", ["0", "2"], "Numbers of worker processes to try.")
_DEMAND = flags.DEFINE_float("demand", 0.0, "Images/s the step takes; 0 measures it here.")
_SECONDS = flags.DEFINE_float("seconds", 10.0, "Time spent on each figure.", lower_bound=0.1)

_DEMAND_STEPS = 5


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    del argv
    config = cli.config_values(_CONFIG)
    if config is None:
        raise UserError("--config is missing; start with --config configs/quickstart.py")
    workers = _parse_workers(_WORKERS.value)
    from mtv_jax.assemble import System
    from tools.bench.timing import time_batches, time_stages

    trusted = tuple(cli.TRUST_ROOT.value)
    system = System(config, trusted=trusted)
    stages = time_stages(system, _SECONDS.value)
    demand = _DEMAND.value or _measured_demand(system)
    print(f"step takes         {demand:9.1f} images/s")
    for stage, spent in {**stages, "all three": sum(stages.values())}.items():
        print(f"{stage:18} {_rate(1 / spent, demand)}  {1e3 * spent:.3f} ms each")
    for number in workers:
        rate = time_batches(System(_with_workers(config, number), trusted=trusted), _SECONDS.value)
        print(f"{f'loader, workers={number}':18} {_rate(rate, demand)}", flush=True)
    return 0


def _measured_demand(system: "System") -> float:
    from tools.bench.timing import time_step

    print("timing the step on fake data (--demand skips this)", file=sys.stderr)
    return time_step(system, steps=_DEMAND_STEPS).images_per_s


def _parse_workers(texts: Sequence[str]) -> list[int]:
    if not texts or not all(text.isdigit() for text in texts):
        raise UserError(f"--workers={','.join(texts)} should be numbers, such as 0,2")
    return [int(text) for text in texts]


def _with_workers(config: Mapping[str, Any], workers: int) -> dict[str, Any]:
    return {**config, "input": {**config["input"], "workers": workers}}


def _rate(images_per_s: float, demand: float) -> str:
    return f"{images_per_s:9.1f} images/s {images_per_s / demand:8.1f} x the step"


if __name__ == "__main__":
    cli.run(main)
