# SPDX-License-Identifier: Apache-2.0
"""Orbax checkpoints: state and stream position as one unit, restored onto any topology."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError
from mtv_jax.training.state import TrainState

_STATE = "state"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save and what to keep.

    Attributes:
        every: steps between saves.
        keep: newest checkpoints kept.
        keep_every: besides, every checkpoint at a multiple of this; 0 for none.
    """

    every: int = at_least(1, 1000)
    keep: int = at_least(1, 2)
    keep_every: int = at_least(0, 0)


class Checkpointer:
    """Asynchronous saves under `<workdir>/ckpt/<step>`; only committed steps are ever listed."""

    def __init__(self, workdir: pathlib.Path, config: CheckpointConfig):
        policies = ocp.training.preservation_policies
        kept: list[Any] = [policies.LatestN(config.keep)]
        if config.keep_every:
            kept.append(policies.EveryNSteps(config.keep_every))
        self._pending: Any = None
        always: Any = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
        preserved: Any = policies.AnyPreservationPolicy(kept)
        self._checkpointer = ocp.training.Checkpointer(
            str(checkpoint_root(workdir)),
            save_decision_policy=always,
            preservation_policy=preserved,
        )

    @property
    def latest(self) -> int | None:
        """The newest committed step."""
        newest = self._checkpointer.latest
        return None if newest is None else newest.step

    def save(self, step: int, state: TrainState) -> None:
        """Starts saving; waits for the save before it, and raises what that one met."""
        self.wait()
        if self.latest == step:
            return
        self._pending = self._checkpointer.save_checkpointables_async(step, {_STATE: vars(state)})

    def wait(self) -> None:
        """Returns when the last save is committed."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def restore(self, abstract: TrainState, step: int | None = None) -> TrainState:
        """The state of a step (the newest by default), on the shardings of `abstract`.

        Raises:
            UserError: no such checkpoint, or it is of another model.
        """
        root = pathlib.Path(self._checkpointer.directory)
        step = self.latest if step is None else step
        if step is None:
            raise UserError(f"{root.parent} has no checkpoint yet; train first")
        if not (root / str(step)).is_dir():
            raise UserError(f"{root.parent} has no checkpoint of step {step}")
        saved = array_metadata(root, step)
        wanted = jax.tree.map(_described, vars(abstract))
        _refuse_mismatch(_by_path(saved), _by_path(wanted))
        loaded = self._checkpointer.load_checkpointables(step, {_STATE: vars(abstract)})
        return TrainState(**loaded[_STATE])

    def close(self) -> None:
        """Waits for the last save and frees the threads."""
        self.wait()
        self._checkpointer.close()


def checkpoint_root(workdir: pathlib.Path) -> pathlib.Path:
    """Where a run's checkpoints lie; absolute, as Orbax wants it."""
    return workdir.resolve() / "ckpt"


def steps_in(workdir: pathlib.Path) -> list[int]:
    """Committed checkpoint steps of a run, ascending."""
    root = checkpoint_root(workdir)
    return sorted(int(p.name) for p in root.glob("*") if p.name.isdigit() and p.is_dir())


def newest_step(workdir: pathlib.Path) -> int:
    """The newest committed step.

    Raises:
        UserError: there is none.
    """
    steps = steps_in(workdir)
    if not steps:
        raise UserError(f"{workdir} has no checkpoint yet; train it first")
    return steps[-1]


def array_metadata(root: Any, step: int | None) -> PyTree:
    """Shape and dtype in words of every array of a checkpoint, read without the model's code."""
    path = pathlib.Path(root) / str(step)
    tree = ocp.metadata(str(path), checkpointable_name=_STATE).metadata
    return jax.tree.map(_described, tree, is_leaf=_is_array_metadata)


def _described(array: Any) -> str:
    return f"{tuple(array.shape)} {array.dtype}"


def load_numpy(workdir: pathlib.Path, step: int, names: tuple[str, ...]) -> dict[str, PyTree]:
    """Top-level subtrees of a checkpoint as numpy, on one CPU, whatever saved it.

    Raises:
        UserError: no such checkpoint, or it lacks a subtree.
    """
    path = checkpoint_root(workdir) / str(step)
    if step not in steps_in(workdir):
        known = ", ".join(map(str, steps_in(workdir))) or "none"
        raise UserError(f"{workdir} has no checkpoint of step {step} (it has: {known})")
    tree = ocp.metadata(str(path), checkpointable_name=_STATE).metadata
    target = {
        name: jax.tree.map(lambda _: np.empty(0), tree[name], is_leaf=_is_array_metadata)
        for name in names
        if name in tree
    }
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        loaded = ocp.load(str(path), target, checkpointable_name=_STATE)
    for name in names:
        leaves = jax.tree.leaves(loaded.get(name, {}))
        if name not in tree or not all(isinstance(leaf, np.ndarray) for leaf in leaves):
            raise UserError(f"checkpoint {path} has no complete {name!r}; was it cut short?")
    return loaded


def _is_array_metadata(node: Any) -> bool:
    return hasattr(node, "shape") and hasattr(node, "dtype")


def _by_path(tree: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_normalised(jax.tree_util.keystr(path)): leaf for path, leaf in leaves}


def _normalised(path: str) -> str:
    """NamedTuple fields read back as dict keys: `.mu` and `['mu']` are the same place."""
    return path.replace("['", ".").replace("']", "").replace("[", ".").replace("]", "")


def _refuse_mismatch(saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    wrong = [p for p in sorted({*saved, *wanted}) if saved.get(p) != wanted.get(p)]
    if wrong:
        path = next((p for p in wrong if p.startswith(".params")), wrong[0])
        raise UserError(
            f"the checkpoint is of another model: {len(wrong)} arrays differ, first "
            f"{path.removeprefix('.')} saved as {saved.get(path, 'absent')}, wanted "
            f"{wanted.get(path, 'absent')}; use the run's own config or another --workdir"
        )
