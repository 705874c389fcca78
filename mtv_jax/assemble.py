# SPDX-License-Identifier: Apache-2.0
"""From a config to a system: the one place where the parts meet."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from input_pipeline.data import Data
from input_pipeline.eval_set import EvalSet
from input_pipeline.image_spec import SIGLIP_IMAGES
from input_pipeline.loader import InputConfig, LocalRows
from input_pipeline.records import sample_shapes
from input_pipeline.tokenizer import Tokenizer
from mtv_jax.core import config as cfg
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import Field
from mtv_jax.core.passes import (
    ImageView,
    TextView,
    View,
    merge_plans,
    needs_mask_token,
    needs_text_tower,
)
from mtv_jax.dist.mesh import (
    MeshConfig,
    batch_sharding,
    local_rows,
    make_mesh,
    put_batch,
    replicated,
)
from mtv_jax.evaluators.base import EvalContext, EvalModel, Evaluator
from mtv_jax.interop.preprocessing import preprocessing_spec
from mtv_jax.models.encoder import Encoder
from mtv_jax.objectives.base import LossOut, Objective
from mtv_jax.training import consistency, memory
from mtv_jax.training.checkpoint import CheckpointConfig
from mtv_jax.training.ema import EmaConfig
from mtv_jax.training.init_source import InitConfig
from mtv_jax.training.interference import Interference
from mtv_jax.training.model import Model, Weights
from mtv_jax.training.optim import OptimConfig, Optimizer
from mtv_jax.training.state import StateFactory, TrainState
from mtv_jax.training.step import make_train_step
from mtv_jax.views.batch import BatchSpec

Section = Mapping[str, Any]
_NOMINAL_PHRASES = 4585  # the tags of RAM++


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What is written while a run goes.

    Attributes:
        every: steps between lines.
        nonfinite: a step that is not finite has no effect; "stop" ends the run at the next line.
        max_skips: with "skip", how many steps in a row may be skipped.
        interference_every: steps between measurements of how objectives interfere; 0: never.
    """

    every: int = cfg.at_least(1, 50)
    nonfinite: Literal["skip", "stop"] = "skip"
    max_skips: int = cfg.at_least(0, 20)
    interference_every: int = cfg.at_least(0, 500)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The top level of a config; sections are checked by their own receivers.

    `notes` are printed when a run starts: what a config file changed, and why.
    """

    seed: int
    batch_size: int = cfg.at_least(1)
    total_steps: int = cfg.at_least(1)
    model: Section
    views: Section
    objectives: Section
    input: Section
    micro_batches: int = cfg.at_least(1, 1)
    optim: Section = dataclasses.field(default_factory=dict)
    ema: Section = dataclasses.field(default_factory=dict)
    init: Section = dataclasses.field(default_factory=dict)
    mesh: Section = dataclasses.field(default_factory=dict)
    checkpoint: Section = dataclasses.field(default_factory=dict)
    log: Section = dataclasses.field(default_factory=dict)
    evals: Section = dataclasses.field(default_factory=dict)
    watchdog_seconds: int = cfg.at_least(0, 1800)
    notes: tuple[str, ...] = ()


class System:
    """Everything a run needs, built from one config.

    Args:
        config: plain values (`core.config.plain`).
        trusted: package roots whose classes a config may name besides our own.
        devices: devices of the mesh; all by default.

    Raises:
        UserError: anything in the config that cannot be.
    """

    def __init__(self, config: Section, *, trusted: tuple[str, ...] = (), devices: Any = None):
        self.config = config
        self.run = cfg.build(RunConfig, config, "")
        self.input = cfg.build(InputConfig, self.run.input, "input")
        self.log = cfg.build(LogConfig, self.run.log, "log")
        self.checkpoint = cfg.build(CheckpointConfig, self.run.checkpoint, "checkpoint")
        self.ema = cfg.build(EmaConfig, self.run.ema, "ema")
        self.init = cfg.build(InitConfig, self.run.init, "init")
        self.mesh: Mesh = make_mesh(cfg.build(MeshConfig, self.run.mesh, "mesh"), devices)
        self._trusted = trusted

        objectives = tuple(named_objects("objectives", self.run.objectives, trusted))
        plan = merge_plans(objective.passes() for objective in objectives)
        encoder = dataclasses.replace(
            cfg.build(Encoder, self.run.model, "model"),
            has_mask_token=needs_mask_token(plan),
            has_text_tower=needs_text_tower(plan),
        )
        self.fields = _union_of_fields(objectives)
        views: tuple[View, ...] = tuple(named_objects("views", self.run.views, trusted))
        self.model = Model(
            encoder=encoder,
            objectives=objectives,
            spec=BatchSpec(views=views, fields=self.fields, patch_size=encoder.patch_size),
            seed=self.run.seed,
            total_steps=self.run.total_steps,
        )
        self.optimizer = Optimizer(
            cfg.build(OptimConfig, self.run.optim, "optim"), self.run.total_steps
        )
        self.frozen: PyTree = self._nominal_frozen()  # until `open_data`
        self.factory = StateFactory(
            model=self.model, optimizer=self.optimizer, ema=self.ema, frozen=self.frozen
        )
        local_rows(self.mesh, self.run.batch_size)
        consistency.check(
            self.model,
            batch_size=self.run.batch_size,
            devices=self.mesh.size,
            micro_batches=self.run.micro_batches,
            text_length=self.input.text_length,
        )

    @property
    def canvas(self) -> int:
        """Side of the host's canvas in pixels."""
        sizes = [v.size for v in self.model.spec.views if isinstance(v, ImageView)]
        return self.input.canvas or 2 * max(sizes, default=self.model.encoder.image_size)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The captions' tokenizer; None when no objective reads texts.

        Raises:
            UserError: no model, or one with more ids than the text tower.
        """
        if not self.model.encoder.has_text_tower:
            return None
        tokenizer = Tokenizer(self.input.tokenizer, self.input.text_length)
        vocab = self.model.encoder.vocab_size
        if tokenizer.vocab_size > vocab:
            raise UserError(
                f"wrong tokenizer: {self.input.tokenizer} has {tokenizer.vocab_size} ids, the text "
                f"tower {vocab}; set --config.model.vocab_size={tokenizer.vocab_size} or give the "
                "tokenizer the model was made for"
            )
        return tokenizer

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What happens to images and texts before the towers, outside of training."""
        return preprocessing_spec(self.model.encoder, SIGLIP_IMAGES, self.tokenizer)

    @functools.cached_property
    def abstract_batch(self) -> dict[str, Any]:
        """Shapes of a global batch, sharded, without reading any data."""
        sharding = batch_sharding(self.mesh)
        shapes = sample_shapes(self.fields, canvas=self.canvas, text_length=self.input.text_length)

        def struct(entry: tuple[tuple[int, ...], Any]) -> jax.ShapeDtypeStruct:
            shape = (self.run.batch_size, *entry[0])
            return jax.ShapeDtypeStruct(shape, entry[1], sharding=sharding)

        return jax.tree.map(struct, shapes, is_leaf=lambda x: isinstance(x, tuple))

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """Shapes and shardings of the train state."""
        with jax.set_mesh(self.mesh):
            return self.factory.abstract(self.mesh, self.abstract_batch)

    @functools.cached_property
    def train_step(self) -> Any:
        """The compiled-on-first-use step; its first argument is donated."""
        step = make_train_step(
            self.model, self.optimizer, self.ema, micro_batches=self.run.micro_batches
        )
        shardings = jax.tree.map(lambda a: a.sharding, self.abstract_state)
        return jax.jit(step, out_shardings=(shardings, None), donate_argnums=0)

    @functools.cached_property
    def compiled_step(self) -> jax.stages.Compiled:
        """The step compiled ahead of time, for states and batches of exactly these shapes.

        Raises:
            UserError: it does not fit into a device's memory.
        """
        with jax.set_mesh(self.mesh):
            lowered = self.train_step.lower(self.abstract_state, self.frozen, self.abstract_batch)
        return memory.compile_step(lowered, self._remedy)

    @functools.cached_property
    def interference(self) -> Interference:
        """Measures how objectives pull at the tower they share."""
        parts, every = self.run.micro_batches, self.log.interference_every
        return Interference(self.model, micro_batches=parts, every=every, mesh=self.mesh)

    def memory_plan(self) -> memory.MemoryPlan:
        """What the compiled step holds on a device.

        Raises:
            UserError: more than a device gives.
        """
        state = self.abstract_state
        parts = {
            "parameters": state.params,
            "teacher": state.ema,
            "moments": state.opt,
            "slots": state.slots,
            "frozen": self.frozen,
            "batch": self.abstract_batch,
        }
        plan = memory.plan_memory(self.compiled_step, parts)
        plan.check(memory.device_limit(self.mesh), self._remedy)
        return plan

    @property
    def _remedy(self) -> str:
        return memory.remedy(
            self.mesh,
            rows=self.run.batch_size // self.mesh.size,
            micro_batches=self.run.micro_batches,
            remat=self.model.encoder.remat,
        )

    def init_state(self, loaded: Mapping[str, np.ndarray] = {}) -> TrainState:
        """A fresh state, sharded; parameters whose paths `loaded` has are taken from there."""
        seed, batch, abstract = self.run.seed, self.abstract_batch, self.abstract_state
        with jax.set_mesh(self.mesh):
            return self.factory.create(seed, batch, abstract, loaded)

    def open_data(self) -> None:
        """Opens everything that will be read.

        Raises:
            UserError: what is missing for training or for an evaluation at its end.
        """
        self.frozen = self._read_frozen(self.data)
        for evaluator in self.evaluators:
            evaluator.check([field.name for field in self.fields])

    def _data(self, config: InputConfig) -> Data:
        return Data(
            config=config,
            fields=self.fields,
            canvas=self.canvas,
            tokenizer=self.tokenizer,
            seed=self.run.seed,
        )

    @functools.cached_property
    def data(self) -> Data:
        """The mixture that is trained on."""
        return self._data(self.input)

    def batches(self, first: int, data: Data | None = None) -> Iterator[dict[str, Any]]:
        """This process's rows of global batches first, first + 1, …, as numpy.

        Args:
            first: number of the first batch.
            data: instead of the mixture that is trained on.
        """
        rows = local_rows(self.mesh, self.run.batch_size)
        local = LocalRows(batch_size=self.run.batch_size, rows=rows)
        return (data or self.data).batches(local, first=first)

    def _table_views(self) -> list[TextView]:
        """The tables that passes read."""
        read = {request.view for request in self.model.plan}
        views = [view for view in self.model.spec.views if isinstance(view, TextView)]
        return [view for view in views if view.table and view.name in read]

    def _nominal_frozen(self) -> PyTree:
        """Shapes to plan with before data is read."""
        shapes = {view.name: (_NOMINAL_PHRASES, view.length) for view in self._table_views()}
        whole = replicated(self.mesh)
        structs = {
            name: jax.ShapeDtypeStruct(shape, np.int32, sharding=whole)
            for name, shape in shapes.items()
        }
        return {"tables": structs} if structs else {}

    def _read_frozen(self, data: Data) -> PyTree:
        """The phrases of a mixture, on every device."""
        data.streams  # noqa: B018 - opens the stores, also when no table is read
        tables = {}
        for view in self._table_views():
            ids, whole = data.phrase_ids(view.field, view.length), replicated(self.mesh)
            tables[view.name] = jax.make_array_from_callback(ids.shape, whole, ids.__getitem__)
        return {"tables": tables} if tables else {}

    def put(self, local: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process's rows as part of the global batch on the mesh."""
        return put_batch(self.mesh, self.run.batch_size, local)

    def heldout_losses(
        self, state: TrainState, data: EvalSet, count: int
    ) -> Iterator[Mapping[str, LossOut]]:
        """Losses of `state` on the first `count` batches of other data.

        Objectives with a teacher have the metric "strange_loss" as well: what they lose when the
        teacher sees another image.
        """
        spec = {"path": data.store, "selection": data.selection, "sidecars": data.sidecars}
        other = self._data(dataclasses.replace(self.input, stores={"heldout": spec}))
        frozen = self._read_frozen(other)
        for _, local in zip(range(count), self.batches(0, other), strict=False):
            with jax.set_mesh(self.mesh):
                yield self._losses(state, frozen, self.put(local))

    @functools.cached_property
    def _losses(self) -> Any:
        def losses(
            state: TrainState, frozen: PyTree, batch: Mapping[str, Any]
        ) -> dict[str, LossOut]:
            weights = Weights(params=state.params, ema=state.ema, frozen=frozen)
            run = functools.partial(
                self.model.losses,
                weights,
                state.slots,
                batch,
                state.step,
                micro_batches=self.run.micro_batches,
            )
            taught = {o.name for o in self.model.objectives if o.is_taught()}
            strange = run(strange_teacher=True) if taught else {}
            return {
                name: out.but(strange_loss=strange[name].loss) if name in taught else out
                for name, out in run().items()
            }

        return jax.jit(losses)

    def eval_context(
        self, state: TrainState, poll: Callable[[], None] = lambda: None
    ) -> EvalContext:
        """A live state under evaluation."""
        model = EvalModel(
            encoder=self.model.encoder,
            params=state.params,
            objectives={objective.name: objective for objective in self.model.objectives},
            tokenizer=self.tokenizer,
            losses=functools.partial(self.heldout_losses, state),
        )
        return EvalContext(model, self.mesh, poll=poll)

    @functools.cached_property
    def evaluators(self) -> tuple[Evaluator, ...]:
        """The config's evaluators."""
        return tuple(named_objects("evals", self.run.evals, self._trusted))


def named_objects(section: str, specs: Section, trusted: tuple[str, ...]) -> Iterator[Any]:
    """The objects a config section names, each called by its key."""
    for name, spec in specs.items():
        yield cfg.resolve(spec, f"{section}.{name}", trusted=trusted, name=name)


def _union_of_fields(objectives: tuple[Objective, ...]) -> tuple[Field, ...]:
    fields: dict[str, Field] = {}
    for objective in objectives:
        for field in objective.fields():
            if fields.setdefault(field.name, field) != field:
                raise UserError(f"objective {objective.name} redefines the column {field.name!r}")
    if not fields:
        raise UserError("the config has no objectives; add one under objectives")
    return tuple(fields.values())
