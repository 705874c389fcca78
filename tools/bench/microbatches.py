# SPDX-License-Identifier: Apache-2.0
"""One fake batch cut ever finer: what the compiler plans to hold, loss, and gradient."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import optax

from mtv_jax.assemble import System
from mtv_jax.core.errors import UserError
from mtv_jax.training.memory import MemoryPlan, plan_memory
from mtv_jax.training.model import Weights
from tools.bench.timing import fake_frozen, local_batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """One number of micro-batches.

    Attributes:
        micro_batches: their number.
        plan: what the compiler says.
        loss: of the batch; None when only compiled.
        difference: of the gradient from that of the first count, relative to its norm.
    """

    micro_batches: int
    plan: MemoryPlan
    loss: float | None = None
    difference: float | None = None

    def cells(self) -> tuple[str, ...]:
        """One line of the table."""
        return (
            str(self.micro_batches),
            f"{self.plan.temporaries / 2**20:,.1f} MiB",
            f"{self.plan.peak / 2**20:,.1f} MiB",
            "-" if self.loss is None else f"{self.loss:.6f}",
            "-" if self.difference is None else f"{self.difference:.1e}",
        )


def measure(systems: Sequence[System], *, compile_only: bool = False) -> Iterator[Measured]:
    """One system after the other, which differ in their micro-batches only."""
    inputs: Any = None
    first: Any = None
    for system in systems:
        state, batch = system.abstract_state, system.abstract_batch
        with jax.set_mesh(system.mesh):
            compiled = jax.jit(_gradient(system)).lower(state, system.frozen, batch).compile()
        plan = plan_memory(compiled, {"parameters": state.params, "batch": batch})
        count = system.run.micro_batches
        if compile_only:
            yield Measured(micro_batches=count, plan=plan)
            continue
        inputs = inputs or (
            system.init_state(),
            fake_frozen(system),
            system.put(local_batch(system)),
        )
        loss, gradient = compiled(*inputs)
        first = first or gradient
        difference = _difference(gradient, first)
        yield Measured(micro_batches=count, plan=plan, loss=float(loss), difference=difference)


def _gradient(system: System) -> Any:
    """Of the weighted sum of losses, as the training step takes it."""

    def total(params: Any, state: Any, frozen: Any, batch: Mapping[str, Any]) -> Any:
        weights = Weights(params=params, ema=state.ema, frozen=frozen)
        count = system.run.micro_batches
        losses = system.model.losses(weights, state.slots, batch, state.step, micro_batches=count)
        return system.model.total(losses, state.step)

    return lambda state, *inputs: jax.value_and_grad(total)(state.params, state, *inputs)


def _difference(one: Any, other: Any) -> float:
    """Norm of the difference, relative.

    Over all parameters at once: to some, such as a key bias, the loss is blind, and their gradient
    is nothing but rounding.
    """
    apart = jax.tree.map(lambda a, b: a - b, one, other)
    return float(optax.tree.norm(apart) / optax.tree.norm(other))


def parse_counts(texts: Sequence[str], flag: str = "micro_batches") -> list[int]:
    """Numbers of a list flag.

    Raises:
        UserError: there are none, or one is none.
    """
    if not texts or not all(text.isdigit() and int(text) for text in texts):
        raise UserError(f"--{flag}={','.join(texts)} should be numbers, such as 1,2,8")
    return [int(text) for text in texts]
