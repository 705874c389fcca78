# SPDX-License-Identifier: Apache-2.0
"""Memory of the compiled step by number of prototypes, their scores in blocks and at once."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mtv_jax.assemble import System
from mtv_jax.core.errors import UserError

_AT_ONCE = 1 << 20  # MiB: more than all scores


@dataclasses.dataclass(frozen=True)
class Measured:
    """Bytes of one compiled step."""

    count: int
    scores: str
    temporaries: int
    beyond: int


def measure(
    config: Mapping[str, Any], counts: Sequence[int], compiled: Callable[[dict[str, Any]], int]
) -> Iterator[Measured]:
    """Every number of prototypes, in blocks as configured and at once.

    Raises:
        UserError: no objective has prototypes.
    """
    heads = {name: o for name, o in config["objectives"].items() if "prototypes" in o}
    if not heads:
        raise UserError("no objective of this config has prototypes; add ssl to its tasks")
    for count in counts:
        for scores, settings in (("blocks", {}), ("at once", {"block_mib": _AT_ONCE})):
            changed = {k: {**o, "prototypes": count, **settings} for k, o in heads.items()}
            total = compiled({**config, "objectives": {**config["objectives"], **changed}})
            beyond = total - sum(map(_growth, changed.values()))
            yield Measured(count, scores, total, beyond)


def compiled_temporaries(trusted: tuple[str, ...], config: dict[str, Any]) -> int:
    """Bytes inside the compiled step of a config."""
    return System(config, trusted=trusted).memory_plan().temporaries


def _growth(head: Mapping[str, Any]) -> int:
    """Bytes of one head's float32 gradients, and of what its scores are multiplied with."""
    width = 2 if head["dtype"] == "bfloat16" else 4
    casts = 2 * width * head["bottleneck"] if width == 2 else 0
    return head["prototypes"] * (4 * (head["bottleneck"] + 1) + casts)
