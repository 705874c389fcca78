# SPDX-License-Identifier: Apache-2.0
"""One training step: losses, gradients, update, teacher. It never names a loss.

A step whose loss or gradient is not finite changes nothing but the step and the stream position;
its metrics name the objective.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, PyTree

from mtv_jax.core import rng
from mtv_jax.objectives.base import LossOut
from mtv_jax.training.ema import EmaConfig, update_ema
from mtv_jax.training.model import Model, Weights
from mtv_jax.training.optim import Optimizer
from mtv_jax.training.state import TrainState

Metrics = dict[str, Array]
TrainStep = Callable[[TrainState, PyTree, Mapping[str, Array]], tuple[TrainState, Metrics]]


def make_train_step(
    model: Model, optimizer: Optimizer, ema: EmaConfig, *, micro_batches: int
) -> TrainStep:
    """The pure function `(state, frozen, batch) -> (state, metrics)`."""

    def total_loss(params: PyTree, state: TrainState, frozen: PyTree, batch: Mapping) -> Any:
        weights = Weights(params=params, ema=state.ema, frozen=frozen)
        losses = model.losses(weights, state.slots, batch, state.step, micro_batches=micro_batches)
        return model.total(losses, state.step), losses

    def train_step(
        state: TrainState, frozen: PyTree, batch: Mapping[str, Array]
    ) -> tuple[TrainState, Metrics]:
        gradient = jax.value_and_grad(total_loss, has_aux=True)
        (total, losses), grads = gradient(state.params, state, frozen, batch)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(norm) & jnp.isfinite(total)

        params, opt = optimizer.update(grads, state.opt, state.params, state.step)
        new = dataclasses.replace(
            state,
            params=params,
            opt=opt,
            ema=update_ema(ema, state.ema, params),
            slots={name: _slots(out, state.slots[name]) for name, out in losses.items()},
        )
        new = _keep_if(finite, new, state)
        new = dataclasses.replace(
            new,
            step=state.step + 1,
            position=rng.advance(state.position, batch["position"].shape[0]),
        )
        metrics = {
            "loss": total,
            "grad_norm": norm,
            "lr": optimizer.schedule(state.step),
            "skipped": 1.0 - finite.astype(jnp.float32),
            **_objective_metrics(losses),
        }
        return new, metrics

    return train_step


def _slots(out: LossOut, old: PyTree) -> PyTree:
    """New slots, or the old ones of an objective that returned none."""
    return old if out.slots is None else out.slots


def _keep_if(finite: Bool[Array, ""], new: TrainState, old: TrainState) -> TrainState:
    return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)


def _objective_metrics(losses: Mapping[str, LossOut]) -> Metrics:
    metrics: Metrics = {}
    for name, out in losses.items():
        metrics[f"{name}/loss"] = out.loss
        metrics |= {f"{name}/{key}": value for key, value in out.metrics.items()}
    return metrics
