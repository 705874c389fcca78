# SPDX-License-Identifier: Apache-2.0
"""The device mesh: axes `data` and `fsdp`, both of which split the batch.

Axes are Auto: Flax Linen has no sharding-in-types. Helpers are no-ops without a mesh, so the same
model code runs under `eval_shape`, in unit tests and on a pod.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int64, Shaped

from mtv_jax.core.errors import UserError

BATCH_AXES = ("data", "fsdp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices per axis; one of them may be -1, "all that are left"."""

    data: int = -1
    fsdp: int = 1


def make_mesh(config: MeshConfig, devices: list[Any] | None = None) -> Mesh:
    """A (data, fsdp) mesh over all devices.

    Raises:
        UserError: the axes do not multiply to the number of devices.
    """
    devices = devices if devices is not None else jax.devices()
    shape = [config.data, config.fsdp]
    if shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
        raise UserError(
            f"mesh data={config.data} x fsdp={config.fsdp}: want numbers of devices, one of them "
            "may be -1 for all that are left"
        )
    if -1 in shape:
        shape[shape.index(-1)] = max(len(devices) // -int(np.prod(shape)), 1)
    if int(np.prod(shape)) != len(devices):
        raise UserError(
            f"mesh data={config.data} x fsdp={config.fsdp} does not cover {len(devices)} devices; "
            "set --config.mesh.data=-1 and an fsdp that divides the device count"
        )
    return jax.make_mesh(tuple(shape), BATCH_AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def shard_batch(x: Shaped[Array, "b ..."]) -> Shaped[Array, "b ..."]:
    """Constrains the leading axis to the batch axes; keeps activations from following weights."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES))


def batch_shards() -> int:
    """Devices the batch is split over under the current mesh; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis over all devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def local_rows(mesh: Mesh, batch_size: int) -> Int64[np.ndarray, " m"]:
    """The rows of a global batch that this process's devices own, ascending.

    On a pod they need not be neighbours: meshes follow the wiring, hosts own squares of it.

    Raises:
        UserError: the batch does not divide over the devices.
    """
    if batch_size % mesh.size:
        raise UserError(
            f"batch_size {batch_size} does not divide over {mesh.size} devices; choose a multiple "
            f"of {mesh.size} or a smaller mesh"
        )
    owned = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    slices = [index[0].indices(batch_size) for index in owned.values() if index is not None]
    return np.unique(np.concatenate([np.arange(start, stop) for start, stop, _ in slices]))


def put_batch(mesh: Mesh, batch_size: int, local: Mapping[str, Any]) -> Any:
    """This process's rows (`local_rows`, in that order) as part of one global, sharded batch."""
    rows, sharding = local_rows(mesh, batch_size), batch_sharding(mesh)

    def put(values: np.ndarray) -> jax.Array:
        def shard(index: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = index[0].indices(batch_size)
            first = np.searchsorted(rows, start)
            return values[first : first + stop - start]

        shape = (batch_size, *values.shape[1:])
        return jax.make_array_from_callback(shape, sharding, shard)

    return jax.tree.map(put, dict(local))
