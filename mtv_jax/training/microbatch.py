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

Projected = TypeVar("Projected", bound=dict[str, Outputs])


def map_microbatches(
    project: Callable[[Batch], dict[str, Outputs]], batch: Batch, parts: int
) -> dict[str, Outputs]:
    """`project` over `parts` micro-batches; rows in batch order, sums added."""
    if parts == 1:
        return project(batch)
    micro = jax.tree.map(lambda x: split_rows(x, parts), batch)
    stacked = jax.lax.map(jax.checkpoint(project, prevent_cse=False), micro)
    return {
        name: Outputs(
            rows={k: merge_rows(v) for k, v in outputs.rows.items()},
            sums={k: jnp.sum(v, axis=0) for k, v in outputs.sums.items()},
        )
        for name, outputs in stacked.items()
    }


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
