# SPDX-License-Identifier: Apache-2.0
"""Pairwise terms over the global batch in memory linear in it.

Each device keeps its rows, gathers the columns once (the gather's transpose is a reduce-scatter)
and walks its rows in chunks under rematerialisation: memory is chunk × B, not B² / devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Shaped

from mtv_jax.dist.mesh import BATCH_AXES


def pairwise_rows(
    term: Callable[[Any, Any, Any], Any],
    rows: Any,
    columns: Any,
    shared: Any,
    *,
    chunk: int,
) -> Any:
    """`term(row_chunk, all_columns, shared)` for every chunk of rows.

    Args:
        term: maps a chunk of rows [c, …], all columns [B, …] and `shared` to a pytree of
            [c] values.
        rows: pytree of [B, …] arrays, batch-sharded under a mesh.
        columns: pytree of [B, …] arrays, batch-sharded under a mesh; {} where rows meet nothing.
        shared: pytree every device holds in full; its gradient is summed over devices.
        chunk: most rows at a time on a device.

    Returns:
        pytree of [B] values, sharded like the rows.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return _chunked(term, rows, columns, shared, chunk)

    def local(rows: Any, columns: Any, shared: Any) -> Any:
        everyone = jax.tree.map(lambda x: jax.lax.all_gather(x, BATCH_AXES, tiled=True), columns)
        return _chunked(term, rows, everyone, shared, chunk)

    batch = PartitionSpec(BATCH_AXES)
    return jax.shard_map(local, in_specs=(batch, batch, PartitionSpec()), out_specs=batch)(
        rows, columns, shared
    )


def _chunked(term: Callable, rows: Any, columns: Any, shared: Any, chunk: int) -> Any:
    count = jax.tree.leaves(rows)[0].shape[0]
    parts = -(-count // chunk)
    if parts == 1:
        return term(rows, columns, shared)
    size = -(-count // parts)  # the last chunk is filled up with zeros, of which nothing is kept
    split = jax.tree.map(lambda x: _filled(x, parts * size).reshape(parts, size, *x.shape[1:]), rows)
    recompute = jax.checkpoint(lambda part: term(part, columns, shared))
    values = jax.lax.map(recompute, split)
    return jax.tree.map(lambda x: x.reshape(parts * size, *x.shape[2:])[:count], values)


def _filled(x: Shaped[Array, "b ..."], count: int) -> Shaped[Array, "c ..."]:
    return jnp.pad(x, [(0, count - x.shape[0])] + [(0, 0)] * (x.ndim - 1))
