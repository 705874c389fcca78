# SPDX-License-Identifier: Apache-2.0
"""What a run will do, before it does it: the passes, and a table of all parameters."""

import math
import pathlib

import jax
from jaxtyping import PyTree

from mtv_jax.core.passes import Wants
from mtv_jax.dist.rules import path_string
from mtv_jax.training.model import Model
from mtv_jax.training.state import TrainState


def describe(model: Model) -> str:
    """One line per objective and per distinct tower pass."""
    lines = []
    for objective in model.objectives:
        fields = ", ".join(f.name for f in objective.fields())
        heads = ", ".join(objective.heads()) or "none"
        lines.append(f"objective {objective.name}: fields {fields}; heads {heads}")
    for request, wants in model.plan.items():
        lines.append(f"pass {request.id}: {_wanted(wants)}")
    return "\n".join(lines)


def _wanted(wants: Wants) -> str:
    names = [k for k, v in vars(wants).items() if v and k != "taps"]
    taps = [f"taps {', '.join(map(str, wants.taps))}"] if wants.taps else []
    return ", ".join([*names, *taps])


def parameter_table(params: PyTree) -> str:
    """Path, shape and count of every parameter; the last line is `total N`."""
    rows = parameter_rows(params)
    width = max(len(path) for path, _, _ in rows)
    lines = [f"{path:{width}}  {shape!s:24} {count:>13,}" for path, shape, count in rows]
    return "\n".join([*lines, f"total {sum(count for _, _, count in rows):,}"])


def parameter_rows(params: PyTree) -> list[tuple[str, tuple[int, ...], int]]:
    """(path, shape, count) of every parameter."""
    return [
        (path_string(path), tuple(leaf.shape), math.prod(leaf.shape))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]


def write(model: Model, state: TrainState, workdir: pathlib.Path) -> None:
    """`plan.txt` and `params.tsv` of a run directory, by process 0."""
    if jax.process_index():
        return
    (workdir / "plan.txt").write_text(describe(model) + "\n")
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    rows = [
        f"{path_string(path)}\t{tuple(leaf.shape)}\t{leaf.size}\t{leaf.sharding.spec}\n"
        for path, leaf in leaves
    ]
    (workdir / "params.tsv").write_text("path\tshape\tcount\tsharding\n" + "".join(rows))
