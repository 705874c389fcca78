# SPDX-License-Identifier: Apache-2.0
"""What a compiled step holds on a device: told, and refused if too much, before it runs."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping

import jax
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered
from jaxtyping import PyTree

from mtv_jax.core.errors import UserError

STEPS_AHEAD = 2  # how far the host may run before the devices: batches in flight are memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes on one device.

    Attributes:
        parts: what the arguments are made of, by name, from their shapes and shardings.
        arguments: as the compiler counts them; what the step does not read is left out.
        waiting: batches that lie on the device while the step runs.
        temporaries: activations, gradients and whatever else lives inside the step.
        outputs: those that are not written over an argument.
    """

    parts: Mapping[str, int]
    arguments: int
    waiting: int
    temporaries: int
    outputs: int

    @property
    def peak(self) -> int:
        """What the device must have."""
        return self.arguments + self.waiting + self.temporaries + self.outputs

    def describe(self) -> str:
        """One line."""
        beside = {
            "waiting batches": self.waiting,
            "temporaries": self.temporaries,
            "outputs": self.outputs,
        }
        told = [f"{name} {_size(n)}" for name, n in {**self.parts, **beside}.items() if n]
        return f"memory per device: {', '.join(told)}; peak {_size(self.peak)} (training alone)"

    def write(self, workdir: pathlib.Path) -> None:
        """`memory.txt` of a run directory, by process 0."""
        if jax.process_index() == 0:
            (workdir / "memory.txt").write_text(self.describe() + "\n")

    def check(self, limit: int | None, remedy: str) -> None:
        """Refuses what the device does not have.

        Raises:
            UserError: the peak exceeds the limit.
        """
        if limit is not None and self.peak > limit:
            raise UserError(
                f"the step needs {_size(self.peak)} on a device that gives {_size(limit)}; {remedy}"
            )


def plan_memory(compiled: Compiled, parts: Mapping[str, PyTree]) -> MemoryPlan:
    """The plan of a compiled step.

    Args:
        compiled: the step.
        parts: its arguments by name, "batch" among them; arrays, or shapes with shardings.
    """
    stats = compiled.memory_analysis()
    if stats is None:
        raise RuntimeError("this backend does not tell what a compiled step holds")
    waiting = bytes_per_device(parts["batch"]) * STEPS_AHEAD
    return MemoryPlan(
        waiting=waiting,
        parts={name: bytes_per_device(tree) for name, tree in parts.items()},
        arguments=stats.argument_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
    )


def bytes_per_device(tree: PyTree) -> int:
    """Bytes of one device's shards."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def device_limit(mesh: Mesh) -> int | None:
    """Bytes that a device of this process gives; None where it does not say (CPU)."""
    for device in mesh.local_devices[:1]:
        return (device.memory_stats() or {}).get("bytes_limit")
    return None


def compile_step(lowered: Lowered, remedy: str) -> Compiled:
    """Compiles ahead of time.

    Raises:
        UserError: the compiler already found that the step does not fit.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(f"the step does not fit into the device's memory; {remedy}") from error


def remedy(mesh: Mesh, *, rows: int, micro_batches: int, remat: str) -> str:
    """What makes a step smaller, the cheapest first.

    Args:
        mesh: of the step.
        rows: samples of a batch on one device.
        micro_batches: as they are.
        remat: as it is.
    """
    more = next((m for m in range(2 * micro_batches, rows + 1) if rows % m == 0), None)
    options = [
        *([f"--config.micro_batches={more}"] if more else []),
        *(["--config.model.remat=full"] if remat != "full" else []),
        *([f"--config.mesh.fsdp={mesh.size}"] if mesh.shape["fsdp"] < mesh.size else []),
    ]
    return f"set {', then '.join(options)}" if options else "use more devices or a smaller model"


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
