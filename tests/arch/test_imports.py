# SPDX-License-Identifier: Apache-2.0
"""An import may only point to a lower rank; siblings only to their own base."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
RANKS = {
    "mtv_jax.core": 0,
    "mtv_jax.dist": 1,
    "mtv_jax.nn": 1,
    "mtv_jax.views": 1,
    "input_pipeline": 1,
    "mtv_jax.models": 2,
    "mtv_jax.objectives": 3,
    "mtv_jax.evaluators": 3,
    "mtv_jax.interop": 3,
    "mtv_jax.training": 4,
    "mtv_jax.assemble": 5,
    "configs": 5,
    "mtv_jax": 6,
    "tools": 6,
    "tests": 7,
}
# One file each: an addition to these rooms may lean on the room's base and on nothing beside it.
LEAVES = ("mtv_jax.objectives", "mtv_jax.evaluators")
FOREIGN = ("torch", "tensorflow", "transformers")


def room(module: str) -> str:
    parts = module.split(".")
    candidates = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((c for c in candidates if c in RANKS), "")


def imports_of(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def violations(module: str, source: str) -> list[str]:
    """Imports of `source` that climb, cross between siblings, or bring in a foreign framework."""
    here, bad = room(module), []
    for target in imports_of(source):
        there = room(target)
        trains = here.startswith(("mtv_jax", "input_pipeline", "configs"))
        if trains and target.split(".")[0] in FOREIGN:
            bad.append(target)
        if here == "input_pipeline" and target.split(".")[0] == "jax":
            bad.append(target)
        if not there:
            continue
        sibling = here in LEAVES and there == here and not target.startswith(f"{here}.base")
        shared = target.startswith("mtv_jax.evaluators.suite")
        crossing = there != here and RANKS[there] == RANKS[here] and not _may_cross(here, there)
        if RANKS[there] > RANKS[here] or (sibling and not shared) or crossing:
            bad.append(target)
    return bad


def _may_cross(here: str, there: str) -> bool:
    """Evaluators and exports see objectives by their types; tools use the entry points' helpers."""
    return (here, there) in {
        ("mtv_jax.evaluators", "mtv_jax.objectives"),
        ("mtv_jax.interop", "mtv_jax.objectives"),
        ("tools", "mtv_jax"),
        ("mtv_jax.nn", "mtv_jax.dist"),
        ("mtv_jax.assemble", "configs"),
    }


SOURCES = sorted(
    path
    for top in ("mtv_jax", "input_pipeline", "configs", "tools")
    for path in (ROOT / top).rglob("*.py")
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    assert violations(module, path.read_text()) == []


def test_the_test_goes_red():
    climbing = "from mtv_jax.training.step import make_train_step"
    assert violations("mtv_jax.objectives.depth", climbing)
    assert violations("mtv_jax.objectives.depth", "import mtv_jax.objectives.koleo")
    assert violations("input_pipeline.loader", "import jax.numpy as jnp")
    assert violations("mtv_jax.train", "import torch")
    assert violations("mtv_jax.core.rng", "from mtv_jax.models.vit import ImageTower")
    assert not violations("mtv_jax.objectives.depth", "from mtv_jax.objectives.base import Context")
    assert not violations("mtv_jax.training.step", "from mtv_jax.objectives.base import LossOut")
