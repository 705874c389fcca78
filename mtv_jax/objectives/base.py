# SPDX-License-Identifier: Apache-2.0
"""The contract of an objective: what it needs, and one number.

An objective declares fields, views (by name), passes, heads and slots; the step runs the union of
all of them once. Its arithmetic is in two parts. `project` is per sample and runs under the
micro-batch map; `loss` sees the stacked outputs of the whole global batch, once. So negatives,
valid counts, centres and groups are those of the full batch whatever the micro-batch.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int32, Key, PyTree, Shaped

from mtv_jax.core.fields import Field
from mtv_jax.core.passes import Features, Pass, Plan, Wants
from mtv_jax.models.encoder import Encoder
from mtv_jax.views.batch import Batch

Heads = Mapping[str, Callable[..., Any]]


def bind_heads(modules: Mapping[str, nn.Module], params: Mapping[str, PyTree]) -> Heads:
    """The modules that have parameters, as functions of their inputs."""
    return {
        name: functools.partial(module.apply, {"params": params[name]})
        for name, module in modules.items()
        if name in params
    }


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

    def but(self, **metrics: Float[Array, ""]) -> "LossOut":
        """The same with more metrics."""
        return dataclasses.replace(self, metrics={**self.metrics, **metrics})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alarm:
    """A sign in an objective's metrics that something is wrong.

    Attributes:
        above: metric → value that it exceeds.
        below: metric → value that it falls short of. All conditions must hold.
        after: progress in [0, 1] before which it is normal.
        problem: what is wrong, in words.
        remedy: what to try.
    """

    above: Mapping[str, float] = dataclasses.field(default_factory=dict)
    below: Mapping[str, float] = dataclasses.field(default_factory=dict)
    after: float = 0.0
    problem: str
    remedy: str

    def rings(self, metrics: Mapping[str, float], progress: float) -> bool:
        """Whether all conditions hold; a metric that is not there rings nothing."""
        high = all(metrics.get(name, -math.inf) > limit for name, limit in self.above.items())
        low = all(metrics.get(name, math.inf) < limit for name, limit in self.below.items())
        return progress >= self.after and high and low


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
        self,
        batch: Batch,
        keys: Key[Array, " b"],
        vocabularies: Mapping[str, Int32[Array, "u t"]],
    ) -> dict[str, Int32[Array, "u t"]]:
        """Inputs of passes over tables, made from the whole batch before it is split.

        By default a table pass reads the whole vocabulary of its view; what is returned here for
        that view stands in its place (the distinct phrases of this batch). `keys` are those of
        `derive`. Rows may be added at the end of a table to divide it over devices.
        """
        del batch, keys, vocabularies
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

    def loss_group(self) -> int:
        """Consecutive samples that `loss` compares with each other; 1: none, or all."""
        return 1

    def is_taught(self) -> bool:
        """Whether it reads the EMA teacher."""
        return any(request.who == "ema" for request in self.passes())

    def alarms(self) -> tuple["Alarm", ...]:
        """What its metrics look like when training goes wrong."""
        return ()

    def predicts(self) -> Wants:
        """What `predict` reads of the image tower; nothing when there is nothing to predict."""
        return Wants()

    def predict(
        self, image: Features, heads: Heads, *, grid: int, size: int
    ) -> dict[str, Float[Array, "b h w *c"]]:
        """Maps by name of whole images, `size` pixels square, from features on a `grid` of patches.

        An objective that predicts takes its heads along when a model is exported.
        """
        del image, heads, grid, size
        return {}

    @abc.abstractmethod
    def project(self, ctx: Context) -> Outputs:
        """From features to what the loss compares, per sample."""

    @abc.abstractmethod
    def loss(self, outputs: Outputs, ctx: Context) -> LossOut:
        """The whole global batch's loss, float32."""


def predict_maps(
    encoder: Encoder, objective: Objective, params: PyTree, pixels: Float[Array, "b h w 3"]
) -> dict[str, Float[Array, "b h w *c"]]:
    """An objective's maps of square images in [-1, 1].

    Args:
        encoder: the towers.
        objective: whose heads predict.
        params: {"backbone": …, "heads": {name: …}} with that objective's heads.
        pixels: of any size that the patch size divides.
    """
    size = pixels.shape[-2]
    image = encoder.image(params["backbone"], pixels, objective.predicts())
    heads = bind_heads(objective.heads(), params["heads"])
    return objective.predict(image, heads, grid=size // encoder.patch_size, size=size)
