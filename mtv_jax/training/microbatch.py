# SPDX-License-Identifier: Apache-2.0
"""Micro-batches with exact global losses.

`project` is mapped over micro-batches under rematerialisation and its outputs are stacked back
into batch order; the loss then sees the whole batch. Differentiating recomputes one micro-batch at
a time, so memory falls and the mathematics does not change (GradCache, arXiv 2101.06983).
"""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Shaped

from mtv_jax.dist.mesh import BATCH_AXES, batch_shards
from mtv_jax.objectives.base import Outputs
from mtv_jax.views.batch import Batch

Rows = TypeVar("Rows")
Out = TypeVar("Out")


def map_microbatches(
    project: Callable[[Batch], dict[str, Outputs]], batch: Batch, parts: int
) -> dict[str, Outputs]:
    """`project` over `parts` micro-batches; rows in batch order, sums added."""
    if parts == 1:
        return project(batch)
    stacked = _map_parts(project, batch, parts)
    return {
        name: Outputs(
            rows={k: merge_rows(v) for k, v in outputs.rows.items()},
            sums={k: jnp.sum(v, axis=0) for k, v in outputs.sums.items()},
        )
        for name, outputs in stacked.items()
    }


def map_rows(run: Callable[[Rows], Out], rows: Rows, parts: int) -> Out:
    """`run` over `parts` runs of rows, one at a time; what it returns has rows as well."""
    if parts == 1:
        return run(rows)
    return jax.tree.map(merge_rows, _map_parts(run, rows, parts))


def _map_parts(run: Callable[[Rows], Out], rows: Rows, parts: int) -> Out:
    """What `run` returns for every part, stacked; the backward pass runs it again."""
    split = jax.tree.map(lambda x: split_rows(x, parts), rows)
    return jax.lax.map(jax.checkpoint(run, prevent_cse=False), split)


def split_rows(x: Shaped[Array, "b ..."], parts: int) -> Shaped[Array, "p m ..."]:
    """[B, …] as [parts, B / parts, …]: part k takes the k-th run of rows of every device.

    No row changes device, and rows that are neighbours on a device stay neighbours, so groups of
    consecutive samples survive when they divide the run.
    """
    shards = batch_shards()
    run = x.shape[0] // (shards * parts)
    split = x.reshape(shards, parts, run, *x.shape[1:])
    split = jnp.moveaxis(split, 1, 0).reshape(parts, shards * run, *x.shape[1:])
    return _constrain(split)


def merge_rows(x: Shaped[Array, "p m ..."]) -> Shaped[Array, "b ..."]:
    """The inverse of `split_rows`."""
    shards, (parts, rows) = batch_shards(), x.shape[:2]
    split = x.reshape(parts, shards, rows // shards, *x.shape[2:])
    return jnp.moveaxis(split, 0, 1).reshape(math.prod(x.shape[:2]), *x.shape[2:])


def _constrain(x: Shaped[Array, "p m ..."]) -> Shaped[Array, "p m ..."]:
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(None, BATCH_AXES))
