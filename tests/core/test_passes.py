# SPDX-License-Identifier: Apache-2.0
"""Tests of mtv_jax.core.passes: equal passes merge, whatever is wanted of them."""

from mtv_jax.core.passes import Pass, Wants, merge_plans, needs_mask_token

IMAGE = Pass(tower="image", view="global_crop")
TEACHER = Pass(tower="image", view="global_crop", who="ema")
MASKED = Pass(tower="image", view="global_crop", patch_mask="masked_pred/patch_mask")


def test_equal_passes_run_once_with_the_union_of_wants():
    plan = merge_plans(
        [
            {IMAGE: Wants(pooled=True)},
            {IMAGE: Wants(taps=(5, 2), last_raw=True), TEACHER: Wants(tokens=True)},
            {IMAGE: Wants(taps=(2, 8))},
        ]
    )
    assert plan == {
        TEACHER: Wants(tokens=True),
        IMAGE: Wants(taps=(2, 5, 8), last_raw=True, pooled=True),
    }


def test_order_of_objectives_does_not_matter():
    plans = [{IMAGE: Wants(pooled=True)}, {MASKED: Wants(tokens=True)}]
    assert list(merge_plans(plans)) == list(merge_plans(plans[::-1]))


def test_only_replaced_patches_need_a_mask_token():
    dropped = Pass(tower="image", view="v", patch_mask="m", mask_mode="drop", num_kept=8)
    want = Wants(tokens=True)
    assert needs_mask_token({IMAGE: want, MASKED: want})
    assert not needs_mask_token({IMAGE: want, dropped: want})


def test_ids_are_stable_and_distinct():
    assert MASKED.id == "image/global_crop/student/masked_pred/patch_mask:replace"
    dropped = Pass(
        tower="image", view="v", patch_mask="m", mask_mode="drop", num_kept=8, attn_mask="a"
    )
    assert dropped.id == "image/v/student/m:drop:8/attn:a"
    assert len({IMAGE.id, TEACHER.id, MASKED.id, dropped.id}) == 4
