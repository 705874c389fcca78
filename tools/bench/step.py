# SPDX-License-Identifier: Apache-2.0
"""Times the training step of a config on fake data: no store, no tokenizer, no loader.

    python -m tools.bench.step --config configs/quickstart.py [--steps 20] [--profile FOLDER]
        [--interference]

The batch lies on the devices before the clock starts, so the figure is the devices' own. The first
step compiles; it and the next two are not counted.
"""

import math
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from mtv_jax import cli
from mtv_jax.core.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:key=value,…]")
_STEPS = flags.DEFINE_integer("steps", 20, "Steps that are timed.", lower_bound=1)
_PROFILE = flags.DEFINE_string("profile", "", "Folder for a profiler trace of the timed steps.")

_INTERFERENCE = flags.DEFINE_bool(
    "interference", False, "Time a measurement of interference too, and say what it costs a run."
)
_SHARE = 0.03  # of a run's time that telemetry may take


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    del argv
    config = cli.config_values(_CONFIG)
    if config is None:
        raise UserError("--config is missing; start with --config configs/quickstart.py")
    import jax

    from mtv_jax.assemble import System
    from mtv_jax.dist import runtime
    from tools.bench.timing import time_interference, time_step

    print(runtime.initialize(), flush=True)
    system = System(config, trusted=tuple(cli.TRUST_ROOT.value))
    timing = time_step(system, steps=_STEPS.value, profile=_PROFILE.value)
    low, high = min(timing.seconds), max(timing.seconds)
    print(f"devices            {jax.devices()[0].device_kind} x{system.mesh.size}")
    print(f"batch              {timing.batch_size} in {system.run.micro_batches} micro-batches")
    print(f"first step         {timing.compile_s:.1f} s with compilation")
    print(
        f"step               {1e3 * timing.median_s:.1f} ms median of {len(timing.seconds)} "
        f"({1e3 * low:.1f} to {1e3 * high:.1f})"
    )
    print(f"rate               {timing.images_per_s:.1f} images/s")
    if _INTERFERENCE.value:
        extra = time_interference(system, calls=max(_STEPS.value // 5, 1))
        steps = extra.median_s / timing.median_s
        every = math.ceil(steps / _SHARE)
        print(f"interference       {1e3 * extra.median_s:.1f} ms, as long as {steps:.1f} steps")
        print(f"  compiling it     {extra.compile_s:.1f} s, once")
        print(f"  at most {_SHARE:.0%} with  log.interference_every={every}")
    return 0


if __name__ == "__main__":
    cli.run(main)
