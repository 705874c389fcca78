# SPDX-License-Identifier: Apache-2.0
"""Steps of the published recipes compile ahead of time for a TPU v5e 4×4, without a TPU."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.integration.helpers import ROOT

_COMPILE = """
import json
from configs import %(recipe)s as recipe
from mtv_jax.assemble import System
from mtv_jax.core.config import plain
from mtv_jax.dist.aot import count_collectives, topology_devices
import jax

config = recipe.get_config("tasks=%(tasks)s")
config.mesh.update(data=%(data)d, fsdp=%(fsdp)d)
config.micro_batches = %(micro_batches)d
system = System(plain(config), devices=topology_devices("tpu", "v5e:4x4"))
with jax.set_mesh(system.mesh):
    lowered = system.train_step.lower(system.abstract_state, system.frozen, system.abstract_batch)
    compiled = lowered.compile()
temporaries = compiled.memory_analysis().temp_size_in_bytes
print(json.dumps({"temporaries": temporaries, **count_collectives(compiled.as_text())}))
"""
WHOLE = "vl+ssl+ground+depth"
# Micro-batches that fit a v5e's 16 GB.
CASES = [
    dict(recipe="mtv_b16", tasks="vl", data=16, fsdp=1, micro_batches=4),
    dict(recipe="mtv_b16", tasks="vl", data=4, fsdp=4, micro_batches=4),
    dict(recipe="mtv_b16", tasks=WHOLE, data=16, fsdp=1, micro_batches=16),
    dict(recipe="mtv_l16", tasks=WHOLE, data=4, fsdp=4, micro_batches=32),
]


@pytest.mark.tpu_aot
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the libtpu wheel is absent: pip install -r requirements-tpu.txt",
)
@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c.values())))
def test_the_step_compiles_for_v5e(case):
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE % case],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "TPU_SKIP_MDS_QUERY": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(case, found)
    assert found["all-gather"] >= 1 and found["all-reduce"] >= 1
    if case["fsdp"] == 1:
        assert "all-to-all" not in found and "collective-permute" not in found
