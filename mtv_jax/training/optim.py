# SPDX-License-Identifier: Apache-2.0
"""AdamW with per-path learning rates, decay and freezing (MTV section 5.1)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from mtv_jax.core.schedules import Schedule, warmup_cosine
from mtv_jax.dist.rules import map_rules


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser.

    Attributes:
        lr: peak learning rate.
        warmup_steps: linear warm-up.
        final_lr: the cosine's end, relative to the peak.
        betas: Adam's moment decays.
        eps: Adam's epsilon.
        weight_decay: decoupled, times each parameter's decay rule.
        clip: global gradient norm; 0 for none.
        lr_rules: learning-rate multiplier by path regex; 0 freezes.
        decay_rules: weight-decay multiplier by path regex.
    """

    lr: float = 5e-4
    warmup_steps: int = 1000
    final_lr: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0
    lr_rules: tuple[tuple[str, float], ...] = ((".*", 1.0),)
    decay_rules: tuple[tuple[str, float], ...] = ((".*", 1.0),)

    def schedule(self, total_steps: int) -> Schedule:
        """Learning rate by step."""
        return warmup_cosine(self.lr, self.warmup_steps, total_steps, self.final_lr)


class Optimizer:
    """Gradients to parameters, one step at a time.

    Optax holds clipping and moments; the learning rate comes from the train state's step (not from
    a counter of its own), so a skipped update cannot make the schedule lag.
    """

    def __init__(self, config: OptimConfig, total_steps: int):
        self.config = config
        self.schedule = config.schedule(total_steps)
        clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
        adam = optax.scale_by_adam(*config.betas, eps=config.eps)
        self._transform = optax.chain(clip, adam)

    def init(self, params: PyTree) -> PyTree:
        """Optimiser state."""
        return self._transform.init(params)

    def update(self, grads: PyTree, opt: PyTree, params: PyTree, step: Array) -> tuple[Any, Any]:
        """New parameters and optimiser state."""
        multipliers = map_rules(self.config.lr_rules, params, "optim.lr_rules")
        decays = map_rules(self.config.decay_rules, params, "optim.decay_rules")
        grads = jax.tree.map(lambda g, m: g if m else jnp.zeros_like(g), grads, multipliers)
        updates, opt = self._transform.update(grads, opt, params)
        rate = self.schedule(step)

        def apply(p: Array, u: Array, multiplier: float, decay: float) -> Array:
            return p - rate * multiplier * (u + self.config.weight_decay * decay * p)

        return jax.tree.map(apply, params, updates, multipliers, decays), opt
