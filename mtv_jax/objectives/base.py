# SPDX-License-Identifier: Apache-2.0
"""The contract of an objective: what it needs, and one number.

An objective declares fields, views (by name), passes, heads and slots; the step runs the union of
all of them once. Its arithmetic is in two parts. `project` is per sample and runs under the
micro-batch map; `loss` sees the stacked outputs of the whole global batch, once. So negatives,
valid counts, centres and groups are those of the full batch whatever the micro-batch.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int32, Key, PyTree, Shaped

from mtv_jax.core.fields import Field
from mtv_jax.core.passes import Features, Pass, Plan
from mtv_jax.views.batch import Batch

Heads = Mapping[str, Callable[..., Any]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    """What `project` hands to `loss`.

    Attributes:
        rows: per-sample values [b, …]; micro-batches are stacked back into batch order.
        sums: values added over samples (statistics of tokens and the like).
    """

    rows: dict[str, Shaped[Array, "b ..."]] = dataclasses.field(default_factory=dict)
    sums: dict[str, Float[Array, "..."]] = dataclasses.field(default_factory=dict)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOut:
    """An objective's unweighted loss, metrics to log, and its new slots.

    A metric called "blind_loss" is the loss of the best model that does not look at its input.
    """

    loss: Float[Array, ""]
    metrics: dict[str, Float[Array, ""]] = dataclasses.field(default_factory=dict)
    slots: PyTree = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """What an objective may read.

    Attributes:
        student: its heads with student parameters, by name.
        ema: its heads with EMA parameters (no gradient).
        feats: pass id → features. In `loss` only passes over tables.
        batch: rows of the micro-batch in `project`, of the global batch in `loss`; in `loss`
            without pixels.
        slots: its slots, as of the start of the step.
        step: optimiser steps taken.
        progress: step / total_steps, in [0, 1].
    """

    student: Heads
    ema: Heads
    feats: Mapping[str, Features]
    batch: Batch
    slots: PyTree
    step: Shaped[Array, ""]
    progress: Float[Array, ""]

    def of(self, request: Pass) -> Features:
        """The features of a pass."""
        return self.feats[request.id]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective(abc.ABC):
    """Base of all objectives.

    Attributes:
        name: its key in the config; names its slots, metrics and random streams.
        weight: a number, or {progress in [0, 1]: value} points of a piecewise-linear schedule.
    """

    name: str
    weight: float | Mapping[float, float] = 1.0

    def fields(self) -> tuple[Field, ...]:
        """Columns it reads."""
        return ()

    def derive(self, batch: Batch, keys: Key[Array, " b"]) -> dict[str, Shaped[Array, "b ..."]]:
        """Inputs made from inputs: masks, sampled regions, mixtures. Pure; per micro-batch."""
        del batch, keys
        return {}

    def tables(
        self, batch: Batch, vocabularies: Mapping[str, Int32[Array, "u t"]]
    ) -> dict[str, Int32[Array, "u t"]]:
        """Inputs of passes over tables, made from the whole batch before it is split.

        By default a table pass reads the whole vocabulary of its view; what is returned here for
        that view stands in its place (the distinct phrases of this batch).
        """
        del batch, vocabularies
        return {}

    @abc.abstractmethod
    def passes(self) -> Plan:
        """Tower forwards it reads, and what it wants of each."""

    def heads(self) -> Mapping[str, nn.Module]:
        """Modules it owns. Heads of equal name and definition are shared between objectives."""
        return {}

    def slots(self) -> PyTree:
        """Initial state that has no gradient: centres, running statistics."""
        return {}

    def group(self) -> int:
        """Samples whose rows must stay together in `derive` and `project`; 1: none."""
        return 1

    @abc.abstractmethod
    def project(self, ctx: Context) -> Outputs:
        """From features to what the loss compares, per sample."""

    @abc.abstractmethod
    def loss(self, outputs: Outputs, ctx: Context) -> LossOut:
        """The whole global batch's loss, float32."""
