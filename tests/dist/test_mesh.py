# SPDX-License-Identifier: Apache-2.0
"""Tests of mtv_jax.dist: mesh, rules, and the text of compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from mtv_jax.core.errors import UserError
from mtv_jax.dist import mesh as mesh_module
from mtv_jax.dist import rules
from mtv_jax.dist.aot import count_collectives
from mtv_jax.dist.mesh import MeshConfig, batch_shards, local_rows, make_mesh, put_batch


def test_axes_cover_all_devices_or_say_why_not():
    assert dict(make_mesh(MeshConfig(data=-1, fsdp=2)).shape) == {"data": 4, "fsdp": 2}
    assert batch_shards() == 1
    with jax.set_mesh(make_mesh(MeshConfig())):
        assert batch_shards() == 8
    for config in (MeshConfig(data=3), MeshConfig(data=-1, fsdp=3)):
        with pytest.raises(UserError, match="does not cover 8 devices"):
            make_mesh(config)
    with pytest.raises(UserError, match="want numbers of devices"):
        make_mesh(MeshConfig(data=-1, fsdp=-1))


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="batch_size 12 does not divide over 8 devices"):
        local_rows(make_mesh(MeshConfig()), 12)


@pytest.mark.parametrize("shape", [(8, 1), (2, 4)])
def test_rows_arrive_in_order(shape):
    mesh = make_mesh(MeshConfig(data=shape[0], fsdp=shape[1]))
    values = np.arange(32).reshape(16, 2)
    np.testing.assert_array_equal(put_batch(mesh, 16, {"x": values})["x"], values)


def test_rows_of_a_process_need_not_be_neighbours():
    """On a pod the mesh follows the wiring; here its devices are shuffled by hand."""
    devices = np.asarray(jax.devices())[[0, 5, 2, 7, 1, 6, 3, 4]].reshape(4, 2)
    mesh = Mesh(devices, ("data", "fsdp"))
    values = np.arange(16)
    np.testing.assert_array_equal(put_batch(mesh, 16, {"x": values})["x"], values)


def test_a_process_reads_the_rows_of_its_own_devices(monkeypatch):
    class Sharding:
        def addressable_devices_indices_map(self, shape):
            assert shape == (16,)
            return {"b": (slice(12, 16),), "a": (slice(0, 4),)}

    monkeypatch.setattr(mesh_module, "batch_sharding", lambda mesh: Sharding())
    rows = mesh_module.local_rows(make_mesh(MeshConfig()), 16)
    np.testing.assert_array_equal(rows, [0, 1, 2, 3, 12, 13, 14, 15])


def test_first_match_wins_and_no_match_is_an_error():
    tree = {"a": {"kernel": 1, "bias": 2}, "b": {"kernel": 3}}
    found = rules.map_rules(((r"a/.*", "x"), (r".*/kernel", "y")), tree, "test")
    assert found == {"a": {"kernel": "x", "bias": "x"}, "b": {"kernel": "y"}}
    with pytest.raises(UserError, match="no test rule matches parameter a/bias"):
        rules.map_rules(((r".*kernel", 1), (r"a/b", 1)), tree, "test")
    kept = rules.select(((r"a/kernel", True), (r".*", False)), tree, "test")
    assert kept == {"a": {"kernel": 1}}


def test_fsdp_shards_the_largest_dim_and_never_the_layers():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    tree = {
        "params": {
            "blocks": {"kernel": jax.ShapeDtypeStruct((64, 16, 32), jnp.float32)},
            "small": jax.ShapeDtypeStruct((128,), jnp.float32),
            "odd": jax.ShapeDtypeStruct((333, 333), jnp.float32),
        }
    }
    specs = jax.tree.map(lambda s: s.spec, rules.shardings(mesh, ((".*", "fsdp"),), tree))
    assert specs["params"]["blocks"]["kernel"] == PartitionSpec(None, None, "fsdp")
    assert specs["params"]["small"] == specs["params"]["odd"] == PartitionSpec()
    explicit = rules.shardings(mesh, ((".*", ("data", None)),), {"x": tree["params"]["odd"]})
    assert explicit["x"].spec == PartitionSpec("data", None)


def test_collectives_are_counted_once():
    hlo = """
  %ag = f32[8]{0} all-gather-start(f32[1]{0} %p), channel_id=1
  %agd = f32[8]{0} all-gather-done(%ag)
  %ar = (f32[2]{0}, f32[]) all-reduce(f32[2]{0} %a, f32[] %b), to_apply=%add
"""
    assert count_collectives(hlo) == {"all-gather": 1, "all-reduce": 1}
