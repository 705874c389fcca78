# SPDX-License-Identifier: Apache-2.0
"""Towers and objectives as one function of parameters and a batch.

It plans the union of passes, runs each once, hands features to `project` under the micro-batch map
and the stacked outputs to `loss`. It names no objective.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from mtv_jax.core import rng
from mtv_jax.core.errors import UserError
from mtv_jax.core.passes import Features, Pass, TextView, Wants, merge_plans
from mtv_jax.core.schedules import as_schedule
from mtv_jax.dist.mesh import batch_shards
from mtv_jax.models.encoder import Encoder
from mtv_jax.models.text_tower import text_positions
from mtv_jax.objectives.base import Context, Heads, LossOut, Objective, Outputs, bind_heads
from mtv_jax.training.microbatch import map_microbatches, map_rows
from mtv_jax.views.batch import Batch, BatchSpec, cut_views, open_batch

Experts = Mapping[str, Callable[[PyTree, Array, Wants], Features]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """What a forward pass reads: student parameters, EMA parameters, frozen trees.

    Attributes:
        params: {"backbone": {"image", "text"}, "heads": {name: …}}.
        ema: the subtrees of `params` that have a teacher.
        frozen: {"experts": {name: params}, "tables": {view: ids [u t]}}.
    """

    params: PyTree
    ema: PyTree
    frozen: PyTree


jax.tree_util.register_dataclass(Weights)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """The trained system as pure functions.

    Attributes:
        encoder: both towers.
        objectives: in config order.
        spec: views, fields and patch size.
        seed: of every random choice on the device.
        total_steps: length of the run, for schedules over progress.
        experts: frozen towers by name, as `apply(params, inputs, wants)`.
    """

    encoder: Encoder
    objectives: tuple[Objective, ...]
    spec: BatchSpec
    seed: int
    total_steps: int
    experts: Experts = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def plan(self) -> dict[Pass, Wants]:
        """Every distinct pass of a step and what is wanted of it."""
        return merge_plans(objective.passes() for objective in self.objectives)

    @functools.cached_property
    def heads(self) -> dict[str, nn.Module]:
        """All heads by name.

        Raises:
            UserError: two objectives define one name differently.
        """
        heads: dict[str, nn.Module] = {}
        for objective in self.objectives:
            for name, module in objective.heads().items():
                if heads.setdefault(name, module) != module:
                    raise UserError(
                        f"objective {objective.name} redefines the shared head {name!r}"
                    )
        return heads

    def init(self, key: Key[Array, ""], raw: Mapping[str, Any], frozen: PyTree) -> PyTree:
        """Parameters; of `raw`, any loader batch, and of `frozen` only the shapes matter."""
        backbone = self.encoder.init(rng.named(key, "backbone"))
        recorded: dict[str, tuple[tuple, dict]] = {}
        jax.eval_shape(functools.partial(self._record_heads, recorded), backbone, dict(raw), frozen)
        heads = {}
        for name, module in self.heads.items():
            if name not in recorded:
                raise UserError(f"head {name!r} is declared but never called")
            args, kwargs = recorded[name]
            variables = module.init(rng.named(key, f"head/{name}"), *_zeros(args), **_zeros(kwargs))
            heads[name] = variables.get("params", {})
        return {"backbone": backbone, "heads": heads}

    def init_slots(self) -> dict[str, PyTree]:
        """Initial state without gradient, by objective."""
        return {objective.name: objective.slots() for objective in self.objectives}

    def losses(
        self,
        weights: Weights,
        slots: Mapping[str, PyTree],
        raw: Mapping[str, Any],
        step: Array,
        *,
        micro_batches: int = 1,
        strange_teacher: bool = False,
    ) -> dict[str, LossOut]:
        """Every objective's loss on a global batch, unweighted.

        Args:
            weights: what the passes and heads read.
            slots: by objective.
            raw: a loader batch on the device.
            step: optimiser steps taken.
            micro_batches: parts that the passes take one after the other.
            strange_teacher: whether EMA passes see the inputs of the sample before. What a student
                loses by that is what it knows of its own image.
        """
        heads = _BoundHeads(
            student=bind_heads(self.heads, weights.params["heads"]),
            ema=bind_heads(self.heads, jax.lax.stop_gradient(weights.ema.get("heads", {}))),
        )
        how = _How(micro_batches=micro_batches, strange_teacher=strange_teacher)
        return self._losses(weights, heads, slots, raw, step, how)

    def _losses(
        self,
        weights: Weights,
        heads: "_BoundHeads",
        slots: Mapping[str, PyTree],
        raw: Mapping[str, Any],
        step: Array,
        how: "_How",
    ) -> dict[str, LossOut]:
        batch = open_batch(raw, seed=self.seed, spec=self.spec)
        tables = self._run_tables(weights, batch, how)

        def context(objective: Objective, feats: dict[str, Features], rows: Batch) -> Context:
            own = objective.heads()
            return Context(
                student={name: heads.student[name] for name in own},
                ema={name: heads.ema[name] for name in own if name in heads.ema},
                feats=feats,
                batch=rows,
                slots=slots[objective.name],
                step=step,
                progress=self._progress(step),
            )

        def project(part: Batch) -> dict[str, Outputs]:
            part = self._inputs(part)
            feats = tables | self._run_passes(weights, part, how)
            return {o.name: o.project(context(o, feats, part)) for o in self.objectives}

        outputs = map_microbatches(project, batch, how.micro_batches)
        return {o.name: o.loss(outputs[o.name], context(o, tables, batch)) for o in self.objectives}

    def weighted(self, losses: Mapping[str, LossOut], step: Array) -> dict[str, Float[Array, ""]]:
        """Every loss times its weight."""
        progress = self._progress(step)
        return {
            o.name: as_schedule(o.weight)(progress) * losses[o.name].loss for o in self.objectives
        }

    def total(self, losses: Mapping[str, LossOut], step: Array) -> Float[Array, ""]:
        """Weighted sum of the losses."""
        return sum(self.weighted(losses, step).values(), start=jnp.zeros((), jnp.float32))

    def run_pass(
        self, weights: Weights, request: Pass, wants: Wants, inputs: Mapping[str, Array]
    ) -> Features:
        """One tower forward; gradients flow to the student only."""
        x = inputs[request.view]
        if request.who.startswith("frozen/"):
            name = request.who.removeprefix("frozen/")
            return self._stop(self.experts[name](weights.frozen["experts"][name], x, wants))
        owner = weights.params if request.who == "student" else weights.ema
        if request.tower not in owner.get("backbone", {}):
            raise UserError(
                f"the pass {request.id} has no parameters: ema.rules should select "
                f"backbone/{request.tower}/.* (configs/common.py: teacher)"
            )
        params = owner["backbone"]
        if request.tower == "text":
            positions = self._text_positions(request.view)
            features = self.encoder.text(params, x, wants, positions=positions)
        else:
            features = self.encoder.image(
                params,
                x,
                wants,
                patch_mask=inputs[request.patch_mask] if request.patch_mask else None,
                mask_mode=request.mask_mode,
                num_kept=request.num_kept,
                attn_mask=inputs[request.attn_mask] if request.attn_mask else None,
            )
        return features if request.who == "student" else self._stop(features)

    def _run_passes(self, weights: Weights, batch: Batch, how: "_How") -> dict[str, Features]:
        def inputs(request: Pass) -> dict[str, Array]:
            if how.strange_teacher and request.who == "ema":
                return jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), batch.inputs)
            return batch.inputs

        return {
            request.id: self.run_pass(weights, request, wants, inputs(request))
            for request, wants in self.plan.items()
            if not self._is_table(request)
        }

    def _run_tables(self, weights: Weights, batch: Batch, how: "_How") -> dict[str, Features]:
        vocabularies = weights.frozen.get("tables", {})
        inputs = dict(vocabularies)
        for objective in self.objectives:
            keys = rng.named(batch.keys, objective.name)
            inputs |= objective.tables(batch, keys, vocabularies)

        def run(request: Pass, wants: Wants) -> Features:
            ids = inputs[request.view]
            parts = self._table_parts(ids, len(batch.position), how)
            ids = jnp.pad(ids, [(0, -len(ids) % (parts * batch_shards())), (0, 0)])
            read = functools.partial(self.run_pass, weights, request, wants)
            return map_rows(lambda part: read({request.view: part}), ids, parts)

        return {
            request.id: run(request, wants)
            for request, wants in self.plan.items()
            if self._is_table(request)
        }

    def _table_parts(self, ids: Array, batch_size: int, how: "_How") -> int:
        """So many that a part has no more ids than the captions of a micro-batch."""
        rows, length = ids.shape
        room = batch_size // how.micro_batches * self.encoder.text_length // length
        return -(-rows // max(room, 1))

    def _inputs(self, batch: Batch) -> Batch:
        """The batch with pixels cut, ids masked and everything objectives derive."""
        batch = cut_views(batch)
        derived: dict[str, Array] = {}
        for objective in self.objectives:
            new = objective.derive(batch, rng.named(batch.keys, objective.name))
            if twice := sorted(derived.keys() & new.keys()):
                raise UserError(f"objective {objective.name} derives {twice[0]!r} a second time")
            derived |= new
        return dataclasses.replace(batch, inputs=batch.inputs | derived)

    def _record_heads(
        self, recorded: dict, backbone: PyTree, raw: Mapping[str, Any], frozen: PyTree
    ) -> None:
        """Traces one step with heads that note the arguments of their first call."""

        def note(name: str, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            recorded.setdefault(name, (_shapes(args), _shapes(kwargs)))
            return module.init_with_output(jax.random.key(0), *args, **kwargs)[0]

        recorder = {name: functools.partial(note, name, m) for name, m in self.heads.items()}
        towers = {"backbone": backbone}
        weights = Weights(params=towers, ema=towers, frozen=frozen)
        heads, step = _BoundHeads(student=recorder, ema=recorder), jnp.zeros((), jnp.int32)
        self._losses(weights, heads, self.init_slots(), raw, step, _How())

    def _text_positions(self, view: str) -> tuple[int, ...]:
        recipe = self.spec.view(view)
        assert isinstance(recipe, TextView)
        return text_positions(recipe.length, recipe.pooling_slot)

    def _is_table(self, request: Pass) -> bool:
        recipe = next((v for v in self.spec.views if v.name == request.view), None)
        return isinstance(recipe, TextView) and recipe.table

    def _progress(self, step: Array) -> Float[Array, ""]:
        return jnp.asarray(step, jnp.float32) / self.total_steps

    @staticmethod
    def _stop(features: Features) -> Features:
        return jax.tree.map(jax.lax.stop_gradient, features)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _How:
    """Arguments of `Model.losses` that no objective sees."""

    micro_batches: int = 1
    strange_teacher: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class _BoundHeads:
    student: Heads
    ema: Heads


def _shapes(tree: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "shape") else x, tree
    )


def _zeros(tree: Any) -> Any:
    return jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x, tree
    )
