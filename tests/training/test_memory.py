# SPDX-License-Identifier: Apache-2.0
"""What a compiled step holds, and what is said when a device has less."""

import dataclasses

import jax
import pytest

from input_pipeline.fake import fake_batch
from mtv_jax.assemble import System
from mtv_jax.core.errors import UserError
from mtv_jax.dist.mesh import MeshConfig, make_mesh
from mtv_jax.training import memory
from mtv_jax.training.memory import MemoryPlan, bytes_per_device
from tests.tools.tiny import tiny_config

MIB = 2**20
PLAN = MemoryPlan(
    parts={"parameters": 512 * MIB, "teacher": 0, "moments": 1024 * MIB, "batch": 3 * MIB},
    arguments=1540 * MIB,
    waiting=6 * MIB,
    temporaries=6 * MIB,
    outputs=2 * MIB,
)


@pytest.fixture(scope="module")
def system(world) -> System:
    return System(tiny_config(world), devices=jax.devices()[:1])


def test_the_parts_of_a_real_step_sum_up(system):
    plan = system.memory_plan()
    floats = sum(leaf.size for leaf in jax.tree.leaves(system.abstract_state.params))
    assert plan.parts["parameters"] == 4 * floats
    assert plan.parts["moments"] == pytest.approx(8 * floats, abs=64)  # and Adam's counter
    assert plan.parts["batch"] == pytest.approx(16 * (3 * 32**2 + 4 * 8 + 4 * 7), abs=64)
    # Step and position are arguments too; record ids and image sizes are not read.
    assert plan.arguments == pytest.approx(sum(plan.parts.values()), abs=16 * 4 * 7)
    assert 0 < plan.outputs < 4096, "the state is written over itself"
    assert plan.temporaries > 4 * floats, "gradients at least"
    assert plan.waiting == 2 * plan.parts["batch"], "the loop runs two steps ahead"
    assert plan.peak == plan.arguments + plan.waiting + plan.temporaries + plan.outputs


def test_a_sharded_state_is_counted_by_shard(world, system):
    config = {**tiny_config(world), "mesh": {"data": 1, "fsdp": 8}}
    sharded = bytes_per_device(System(config).abstract_state.params)
    whole = bytes_per_device(system.abstract_state.params)
    assert whole / 8 < sharded < whole / 6, "small parameters are kept whole"


def test_the_plan_is_one_line_without_what_is_absent(tmp_path):
    PLAN.write(tmp_path)
    assert (tmp_path / "memory.txt").read_text() == (
        "memory per device: parameters 512.0 MiB, moments 1.00 GiB, batch 3.0 MiB, "
        "waiting batches 6.0 MiB, temporaries 6.0 MiB, outputs 2.0 MiB; peak 1.52 GiB "
        "(training alone)\n"
    )


def test_a_step_larger_than_its_device_is_refused(system, monkeypatch):
    PLAN.check(None, "")
    PLAN.check(PLAN.peak, "")
    assert memory.device_limit(system.mesh) is None, "a CPU does not say"
    monkeypatch.setattr(memory, "device_limit", lambda mesh: 2 * MIB)
    with pytest.raises(UserError, match=r"needs .* on a device that gives 2\.0 MiB; set --config"):
        system.memory_plan()


@dataclasses.dataclass
class Lowered:
    """A step whose compilation fails."""

    message: str

    def compile(self):
        raise jax.errors.JaxRuntimeError(self.message)


def test_a_compiler_out_of_memory_gets_the_remedy():
    with pytest.raises(UserError, match="does not fit into the device's memory; buy"):
        memory.compile_step(Lowered("RESOURCE_EXHAUSTED: XLA:TPU ran out of HBM"), "buy")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        memory.compile_step(Lowered("INTERNAL: something else"), "buy")


@pytest.mark.parametrize(
    ("devices", "fsdp", "changes", "expected"),
    [
        (
            4,
            1,
            {},
            "set --config.micro_batches=4, then --config.model.remat=full, then "
            "--config.mesh.fsdp=4",
        ),
        (1, 1, {"remat": "full"}, "set --config.micro_batches=4"),
        (4, 4, {"rows": 6, "remat": "full"}, "set --config.micro_batches=6"),
        (1, 1, {"rows": 2, "remat": "full"}, "use more devices or a smaller model"),
    ],
)
def test_the_remedy_names_only_what_is_left(devices, fsdp, changes, expected):
    mesh = make_mesh(MeshConfig(fsdp=fsdp), jax.devices()[:devices])
    values = {"rows": 8, "micro_batches": 2, "remat": "dots", **changes}
    assert memory.remedy(mesh, **values) == expected


def test_the_compiled_step_takes_states_and_batches_as_they_come(system, caplog):
    """A fresh state, then its own output; other shapes are refused, nothing compiles unasked."""
    local = fake_batch(system.fields, batch_size=16, canvas=32, text_length=8)
    step, state, batch = system.compiled_step, system.init_state(), system.put(local)
    with jax.log_compiles(), jax.set_mesh(system.mesh):
        for _ in range(2):
            state, metrics = step(state, system.frozen, batch)
        with pytest.raises(TypeError, match="compiled"):
            step(state, system.frozen, jax.tree.map(lambda x: x[:8], batch))
    assert int(state.step) == 2 and float(metrics["loss"]) > 0
    assert "jit(train_step)" not in caplog.text
