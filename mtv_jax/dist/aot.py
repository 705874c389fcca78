# SPDX-License-Identifier: Apache-2.0
"""Compiling for a topology that is not here, and reading what the compiler made of it."""

import collections
import re
from typing import Any

from mtv_jax.core.errors import UserError

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "reduce-scatter",
)


def topology_devices(platform: str, topology: str) -> list[Any]:
    """Devices of a topology such as ("tpu", "v5e:4x4"), to compile for, not to run on.

    Raises:
        UserError: the platform's compiler is not installed.
    """
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(topology, platform).devices)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"cannot compile for {platform} {topology}: {str(error).splitlines()[0]}; install the "
            "locked wheels of requirements-tpu.txt"
        ) from error


def count_collectives(hlo: str) -> dict[str, int]:
    """How often each collective stands in an optimised HLO text (async pairs count once)."""
    names = "|".join(COLLECTIVES)
    found = re.findall(rf"= \S.*? ({names})(?:-start)?\(", hlo)
    return dict(sorted(collections.Counter(found).items()))
