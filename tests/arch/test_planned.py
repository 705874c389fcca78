# SPDX-License-Identifier: Apache-2.0
"""Every planned objective fits the contract: planned once, run together, step unchanged."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from mtv_jax.core.passes import Wants, merge_plans
from tests.arch.systems import (
    OBJECTIVES,
    assert_gradients_close,
    evaluate,
    tiny_batch,
    tiny_model,
    tiny_params,
)

MTV = ("sigmoid_vl", "self_distill", "masked_pred", "koleo", "grounding", "depth")
RELATIVES = ("sigmoid_vl", "m3i", "ssp", "sak_distill", "sak_tasks")


def _empty(leaf) -> bool:
    return float(jnp.abs(leaf).max()) == 0.0


def test_the_whole_of_mtv_is_six_passes():
    plan = merge_plans(OBJECTIVES[name].passes() for name in MTV)
    assert {request.id: wants for request, wants in plan.items()} == {
        "image/global_crop/student": Wants(
            taps=(0, 1, 2, 3), tapped_norm=True, last_raw=True, pooled=True
        ),
        "image/global_crop/student/masked_pred/patch_mask:replace": Wants(tokens=True),
        "image/global_crop/ema": Wants(tokens=True, pooled=True),
        "image/local_crops/student": Wants(pooled=True),
        "text/caption/student": Wants(pooled=True),
        "text/region_phrases/student": Wants(pooled=True),
    }


def test_all_together_reach_every_head():
    out = evaluate(RELATIVES)
    chex.assert_tree_all_finite((out.losses, out.grads, out.slots))
    unmoved = [
        name
        for name, grads in out.grads["heads"].items()
        if jax.tree.all(jax.tree.map(_empty, grads))
    ]
    assert unmoved == []
    still = {n for n, s in out.slots.items() if s and jax.tree.all(jax.tree.map(_empty, s))}
    assert still == set()


def test_micro_batches_change_nothing():
    one, two = evaluate(RELATIVES), evaluate(RELATIVES, micro_batches=2)
    chex.assert_trees_all_close(one.losses, two.losses, rtol=1e-5)
    assert_gradients_close(one.grads, two.grads)
    chex.assert_trees_all_close(one.slots, two.slots, atol=1e-6)


def test_an_all_invalid_batch_does_nothing():
    batch = tiny_batch(tiny_model(RELATIVES))
    batch["valid"] = {k: np.zeros_like(v) for k, v in batch["valid"].items()}
    out = evaluate(RELATIVES, batch)
    assert all(float(loss) == 0.0 for loss in out.losses.values())
    assert jax.tree.all(jax.tree.map(_empty, out.grads))


def test_a_second_stage_shares_the_heads_of_the_first():
    heads = tiny_params(("sak_distill", "sak_tasks"))["heads"]
    assert sorted(heads) == ["aligner_probe", "decoder", "router", "tsap_probe"]
