# SPDX-License-Identifier: Apache-2.0
"""The VL step of ViT-B/16 compiles ahead of time for a TPU v5e 4×4, on a box without a TPU."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.integration.helpers import ROOT

_COMPILE = """
import json
from configs import mtv_b16
from mtv_jax.assemble import System
from mtv_jax.core.config import plain
from mtv_jax.dist.aot import count_collectives, topology_devices
import jax

config = mtv_b16.get_config("tasks=vl")
config.mesh.update(data=%(data)d, fsdp=%(fsdp)d)
config.micro_batches = 4  # 64 images at a time fit a v5e's 16 GB
system = System(plain(config), devices=topology_devices("tpu", "v5e:4x4"))
with jax.set_mesh(system.mesh):
    lowered = system.train_step.lower(system.abstract_state, system.frozen, system.abstract_batch)
    compiled = lowered.compile()
print(json.dumps(count_collectives(compiled.as_text())))
"""


@pytest.mark.tpu_aot
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the libtpu wheel is absent: pip install -r requirements-tpu.txt",
)
@pytest.mark.parametrize("shape", [(16, 1), (4, 4)], ids=["data16", "data4-fsdp4"])
def test_the_vl_step_compiles_for_v5e(shape):
    source = _COMPILE % {"data": shape[0], "fsdp": shape[1]}
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "TPU_SKIP_MDS_QUERY": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    collectives = json.loads(done.stdout.splitlines()[-1])
    print(shape, collectives)
    assert collectives["all-gather"] >= 1 and collectives["all-reduce"] >= 1
    if shape[1] == 1:
        assert "all-to-all" not in collectives and "collective-permute" not in collectives
