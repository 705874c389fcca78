# SPDX-License-Identifier: Apache-2.0
"""The EMA teacher: float32 copies of the parameters that the rules select (MTV appendix A.2)."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from mtv_jax.dist.rules import select


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """The teacher.

    Attributes:
        momentum: per step, after the optimiser's update.
        rules: which parameters have a teacher, by path regex. None of them: no teacher.
    """

    momentum: float = 0.994
    rules: tuple[tuple[str, bool], ...] = ((".*", False),)


def init_ema(config: EmaConfig, params: PyTree) -> PyTree:
    """An exact copy of the selected parameters."""
    return jax.tree.map(jnp.copy, select(config.rules, params, "ema.rules"))


def update_ema(config: EmaConfig, ema: PyTree, params: PyTree) -> PyTree:
    """momentum · ema + (1 - momentum) · params, in float32."""
    selected = select(config.rules, params, "ema.rules")
    m = config.momentum
    return jax.tree.map(lambda old, new: m * old + (1.0 - m) * new, ema, selected)
