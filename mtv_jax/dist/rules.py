# SPDX-License-Identifier: Apache-2.0
"""Per-parameter choices: ordered (path regex, value), first match wins, no match is an error.

Sharding, learning-rate multiplier, weight decay, freezing and EMA membership all have this shape.
Paths are joined with "/": "backbone/image/blocks/attn/query/kernel".
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mtv_jax.core.errors import UserError

Rules = Sequence[tuple[str, Any]]

# A leaf below this many elements costs more to gather than to keep everywhere.
_SMALL = 2**14


def path_string(path: tuple[Any, ...]) -> str:
    """A jax key path as "a/b/0"."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def match(rules: Rules, path: str, what: str) -> Any:
    """The value of the first rule whose regex matches the whole path.

    Raises:
        UserError: no rule matches.
    """
    for pattern, value in rules:
        if re.fullmatch(pattern, path):
            return value
    raise UserError(f'no {what} rule matches parameter {path}; add one, or a final ".*"')


def map_rules(rules: Rules, tree: Any, what: str) -> Any:
    """A tree like `tree` holding each leaf's rule value."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: match(rules, path_string(path), what), tree
    )


def select(rules: Rules, tree: Any, what: str) -> Any:
    """The nested dict of only those leaves whose rule value is true; empty branches vanish."""

    def prune(node: Any, path: str) -> Any:
        if not isinstance(node, dict):
            return node if match(rules, path, what) else None
        kept = {k: prune(v, f"{path}/{k}" if path else k) for k, v in node.items()}
        return {k: v for k, v in kept.items() if v is not None} or None

    return prune(tree, "") or {}


def shardings(mesh: Mesh, rules: Rules, tree: Any) -> Any:
    """A NamedSharding per leaf of a state's shapes.

    Rule values: "replicate", or "fsdp" (the largest dim divisible by the axis, never the stacked
    layer axis, small leaves replicated), or an explicit tuple for `PartitionSpec`.
    """

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = path_string(path)
        value = match(rules, name, "sharding")
        if value == "fsdp":
            value = _fsdp_spec(name, leaf.shape, mesh.shape["fsdp"])
        elif value == "replicate":
            value = ()
        return NamedSharding(mesh, PartitionSpec(*value))

    return jax.tree_util.tree_map_with_path(one, tree)


def _fsdp_spec(path: str, shape: tuple[int, ...], devices: int) -> tuple[str | None, ...]:
    first = 1 if "/blocks/" in path else 0
    dims = [i for i in range(first, len(shape)) if shape[i] % devices == 0]
    if devices == 1 or math.prod(shape) < _SMALL or not dims:
        return ()
    chosen = max(dims, key=lambda i: shape[i])
    return tuple("fsdp" if i == chosen else None for i in range(len(shape)))
