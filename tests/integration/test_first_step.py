# SPDX-License-Identifier: Apache-2.0
"""First losses of a randomly initialised B/16, all objectives, against what arithmetic expects.

A contrast starts at -bias; prototype scores of independent unit vectors in 256 dimensions have a
standard deviation of 1/16, so that at τ_t = 0.04 the teacher's entropy is ln 32768 - 1.56² / 2.
"""

import jax
import jax.numpy as jnp
import pytest

from configs import mtv_b16
from mtv_jax.assemble import System
from mtv_jax.core.config import plain
from mtv_jax.training.model import Weights
from tools.bench.timing import fake_frozen, local_batch


@pytest.mark.slow
def test_first_losses_of_the_whole_recipe():
    config = mtv_b16.get_config("tasks=vl+ssl+ground+depth")
    config.batch_size = config.objectives.koleo.group_size = 64
    config.micro_batches = 8
    config.model.dtype = "float32"  # CPUs are slower in bfloat16
    config.objectives.grounding.update(texts="unique", max_phrases=256)
    system = System(plain(config), devices=jax.devices()[:1])
    batch = system.put(local_batch(system))

    def losses(state, frozen, batch):
        weights = Weights(params=state.params, ema=state.ema, frozen=frozen)
        return system.model.losses(weights, state.slots, batch, state.step, micro_batches=8)

    with jax.set_mesh(system.mesh):
        out = jax.jit(losses)(system.init_state(), fake_frozen(system), batch)
    out = jax.device_get(out)
    print({name: {"loss": value.loss, **value.metrics} for name, value in out.items()})
    assert abs(out["sigmoid_vl"].loss - 10.0) < 0.5
    assert abs(out["grounding"].loss - 10.0) < 0.5
    for name in ("self_distill", "masked_pred"):
        assert 9.6 < out[name].loss < 10.7
        assert abs(out[name].metrics["teacher_entropy"] - 9.2) < 0.5
    assert all(jnp.isfinite(value.loss) for value in out.values())
