# SPDX-License-Identifier: Apache-2.0
"""Nearest rows of a bank that is split over all devices."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int32

from mtv_jax.dist.mesh import BATCH_AXES, local_rows, put_batch, replicated

# Queries at a time: their scores against a device's part of the bank are in memory. A part is a
# multiple of some rows, so that banks of like sizes share a program.
_QUERIES, _ROWS = 1024, 256


class Nearest(NamedTuple):
    """The best rows of a bank for every query, best first; of equal scores the lower row first."""

    scores: Float[np.ndarray, "q k"]
    rows: Int32[np.ndarray, "q k"]


def nearest(
    mesh: Mesh, queries: Float[np.ndarray, "q d"], bank: Float[np.ndarray, "n d"], k: int
) -> Nearest:
    """The `k` rows of the bank of the largest inner product, in float32.

    Args:
        mesh: devices; each holds its part of the bank, and all see every query.
        queries: the same on every process.
        bank: the same on every process, at least `k` rows.
        k: rows wanted.
    """
    padded = -(-len(bank) // (mesh.size * _ROWS)) * mesh.size * _ROWS
    rows = local_rows(mesh, padded)
    local = bank[np.minimum(rows, len(bank) - 1)].astype(np.float32)
    split = put_batch(mesh, padded, {"bank": local})["bank"]
    search = _search(mesh, k)
    found = []
    for start in range(0, len(queries), _QUERIES):
        block = queries[start : start + _QUERIES].astype(np.float32)
        filled = np.zeros((_QUERIES, block.shape[1]), np.float32)
        filled[: len(block)] = block
        scores, indices = search(filled, split, np.int32(len(bank)))
        found.append((np.asarray(scores)[: len(block)], np.asarray(indices)[: len(block)]))
    return Nearest(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


@functools.lru_cache(maxsize=4)
def _search(mesh: Mesh, k: int) -> jax.stages.Wrapped:
    """`(queries, bank, rows in it)` → scores and rows, compiled once for banks of a size."""

    def local(queries: Array, bank: Array, count: Array) -> tuple[Array, Array]:
        first = jax.lax.axis_index(BATCH_AXES) * len(bank)
        rows = first + jnp.arange(len(bank), dtype=jnp.int32)
        scores = jnp.matmul(queries, bank.T, precision="highest")
        scores = jnp.where(rows < count, scores, -jnp.inf)  # the last rows may be padding
        scores, own = jax.lax.top_k(scores, min(k, len(bank)))
        gather = functools.partial(
            jax.lax.all_gather, axis_name=BATCH_AXES, axis=1, tiled=True
        )
        scores, rows = gather(scores), gather(rows[own])
        scores, best = jax.lax.top_k(scores, k)
        return scores, jnp.take_along_axis(rows, best, axis=1)

    everywhere, parts = PartitionSpec(), PartitionSpec(BATCH_AXES)
    sharded = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(everywhere, parts, everywhere),
        out_specs=everywhere,
        check_vma=False,  # it does not see that what was gathered is the same everywhere
    )
    return jax.jit(sharded, out_shardings=replicated(mesh))
