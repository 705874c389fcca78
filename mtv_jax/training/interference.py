# SPDX-License-Identifier: Apache-2.0
"""How objectives pull at the image tower they share: gradient norms, and cosines between pairs.

    g_i = ∇ (w_i L_i) on the tower,   norm_i = ‖g_i‖,   cosine_ij = ⟨g_i, g_j⟩ / (‖g_i‖ ‖g_j‖)

A cosine below zero is a conflict: a step that helps one objective hurts the other (arXiv
2001.06782). One forward pass serves all objectives, and one compiled backward pass is run once for
each. What is kept of a gradient is its norm, in float32, and its direction, in bfloat16, whose
rounding moved no cosine by more than 1e-4 on a tower of a million parameters.
"""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from mtv_jax.core.errors import UserError
from mtv_jax.training import memory
from mtv_jax.training.model import Model, Weights
from mtv_jax.training.state import TrainState
from mtv_jax.training.step import Metrics

Measure = Callable[[TrainState, PyTree, Mapping[str, Array]], Metrics]

_REMEDY = "set --config.log.interference_every=0, or more --config.micro_batches"


class Interference:
    """Measures every so many steps.

    It is compiled when it is first due, and left out, with a word on stderr, where it does not fit
    into memory: a run that trains is not ended by what watches it.

    Args:
        model: towers and objectives.
        micro_batches: as of the step.
        every: steps between measurements; 0: never.
        mesh: under which it is called.
    """

    def __init__(self, model: Model, *, micro_batches: int, every: int, mesh: Mesh):
        self._measure = jax.jit(make_interference(model, micro_batches=micro_batches))
        self._every, self._mesh = every, mesh
        self._compiled: Measure | None = None

    def __call__(
        self, step: int, state: TrainState, frozen: PyTree, batch: Mapping[str, Array]
    ) -> Metrics:
        """Metrics of the step that is about to be taken; none when they are not due."""
        if not self._every or step % self._every:
            return {}
        if self._compiled is None:
            self._compiled = self._compile(state, frozen, batch)
        return self._compiled(state, frozen, batch)

    def _compile(self, *inputs: Any) -> Measure:
        try:
            compiled = memory.compile_step(self._measure.lower(*inputs), _REMEDY)
            plan = memory.plan_memory(compiled, {"inputs": inputs, "batch": inputs[-1]})
            # The optimiser's moments are not read, but they are there.
            whole = dataclasses.replace(plan, arguments=plan.parts["inputs"])
            whole.check(memory.device_limit(self._mesh), _REMEDY)
        except UserError as error:
            print(f"interference is not measured: with it, {error}", file=sys.stderr, flush=True)
            return lambda *_: {}
        return compiled


def make_interference(model: Model, *, micro_batches: int) -> Measure:
    """The pure function `(state, frozen, batch) -> metrics`.

    Metrics are "interference/norm/A", of the gradient of A's weighted loss, and
    "interference/cosine/A/B" for every pair in alphabetical order. An objective that has no
    gradient on the tower has norm 0, and a cosine of 0 with all others.
    """
    names = sorted(objective.name for objective in model.objectives)

    def losses(
        tower: PyTree, state: TrainState, frozen: PyTree, batch: Mapping[str, Array]
    ) -> Float[Array, " o"]:
        params = {**state.params, "backbone": {**state.params["backbone"], "image": tower}}
        weights = Weights(params=params, ema=state.ema, frozen=frozen)
        outs = model.losses(weights, state.slots, batch, state.step, micro_batches=micro_batches)
        weighted = model.weighted(outs, state.step)
        return jnp.stack([weighted[name] for name in names])

    def measure(state: TrainState, frozen: PyTree, batch: Mapping[str, Array]) -> Metrics:
        tower = state.params["backbone"]["image"]
        _, pull_back = jax.vjp(lambda x: losses(x, state, frozen, batch), tower)
        one_by_one = jnp.eye(len(names))
        norms, directions = jax.lax.map(lambda row: _polar(*pull_back(row)), one_by_one)
        cosines = _cosines(directions)
        metrics = {f"interference/norm/{name}": norms[i] for i, name in enumerate(names)}
        for (i, a), (j, b) in itertools.combinations(enumerate(names), 2):
            metrics[f"interference/cosine/{a}/{b}"] = cosines[i, j]
        return metrics

    return measure


def _polar(gradient: PyTree) -> tuple[Float[Array, ""], PyTree]:
    """Norm, and direction in bfloat16; zeros have no direction and stay zeros."""
    norm = optax.tree.norm(gradient)
    scale = 1 / jnp.where(norm > 0, norm, 1.0)
    return norm, jax.tree.map(lambda x: (x * scale).astype(jnp.bfloat16), gradient)


def _cosines(directions: PyTree) -> Float[Array, "o o"]:
    """Of stacked directions, whose lengths rounding has moved; 0 for those that are zero."""
    products = (
        jnp.einsum("ix,jx->ij", x, x, preferred_element_type=jnp.float32)
        for x in (leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(directions))
    )
    gram = sum(products, start=jnp.zeros(()))
    length = jnp.sqrt(jnp.diagonal(gram))
    length = jnp.where(length > 0, length, 1.0)
    return gram / (length[:, None] * length)
