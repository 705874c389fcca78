# SPDX-License-Identifier: Apache-2.0
"""The published recipes, task by task: parameters, teacher, views (MTV table 1, appendix A.2)."""

import functools
import itertools

import jax
import pytest

from configs import common, mtv_b16, mtv_l16
from mtv_jax.assemble import System
from mtv_jax.core.config import plain
from mtv_jax.core.errors import UserError
from mtv_jax.training.plan import parameter_rows

VL = {"B": 203_155_970, "L": 652_150_786}
ADDED = {
    "B": {"ssl": 29_435_136, "ground": 7_090_176 + 2, "depth": 10_595_137},
    "L": {"ssl": 30_483_968, "ground": 12_599_296 + 2, "depth": 29_766_849},
}
RECIPES = {"B": mtv_b16, "L": mtv_l16}
GRID = [
    "+".join(("vl", *extra))
    for count in range(4)
    for extra in itertools.combinations(("ssl", "ground", "depth"), count)
]


@functools.cache
def _system(size: str, tasks: str) -> System:
    return System(plain(RECIPES[size].get_config(f"tasks={tasks}")))


def _count(tree) -> int:
    return sum(count for _, _, count in parameter_rows(tree))


@pytest.mark.parametrize("tasks", GRID)
def test_1_every_set_of_tasks_has_its_parameters(tasks):
    extra = tasks.split("+")[1:]
    assert _count(_system("B", tasks).abstract_state.params) == VL["B"] + sum(
        ADDED["B"][task] for task in extra
    )


@pytest.mark.parametrize("tasks", ["vl", GRID[-1]])
def test_1_the_large_size(tasks):
    extra = tasks.split("+")[1:]
    expected = VL["L"] + sum(ADDED["L"][task] for task in extra)
    assert _count(_system("L", tasks).abstract_state.params) == expected


def test_2_captions_of_64_tokens_have_64_positions():
    text = _system("B", "vl").abstract_state.params["backbone"]["text"]
    assert text["pos_embed"].shape == (1, 64, 768)


def test_3_the_teacher_is_image_tower_and_prototype_heads():
    """122.3 M parameters; no mask token, texts, prompter, dense head or scalars."""
    state = _system("B", GRID[-1]).abstract_state
    assert _count(state.ema) == 92_884_224 + 2 * 14_717_184
    assert state.ema.keys() == {"backbone", "heads"}
    assert state.ema["backbone"].keys() == {"image"}
    assert state.ema["heads"].keys() == {"self_distill_head", "masked_pred_head"}
    paths = {path for path, _, _ in parameter_rows(state.params["backbone"]["image"])}
    taught = {path for path, _, _ in parameter_rows(state.ema["backbone"]["image"])}
    assert paths - taught == {"mask_token"}


@pytest.mark.parametrize("tasks", ["vl", "vl+ground+depth"])
def test_without_self_supervision_there_is_no_teacher(tasks):
    assert _system("B", tasks).abstract_state.ema == {}


def test_the_views_are_the_same_for_every_set_of_tasks():
    """So are the windows drawn: they depend on a view's name, the seed and the position."""
    views = {tasks: _system("B", tasks).model.spec.views for tasks in GRID}
    assert all(view == views["vl"] for view in views.values())
    sizes = {tasks: _system("B", tasks).canvas for tasks in GRID}
    assert set(sizes.values()) == {448}


def test_a_task_that_is_left_out_is_not_there():
    def passes(tasks: str) -> set[str]:
        return {request.id for request in _system("B", tasks).model.plan}

    vl = {"image/global_crop/student", "text/caption/student"}
    assert passes("vl") == passes("vl+depth") == vl
    assert passes("vl+ground") - vl == {"text/region_phrases/student"}
    assert passes("vl+ssl") - vl == {
        "image/global_crop/ema",
        "image/local_crops/student",
        "image/global_crop/student/masked_pred/patch_mask:replace",
    }
    assert "boxes" not in [field.name for field in _system("B", "vl+ssl").fields]


def test_small_batches_encode_the_phrases_they_hold():
    whole = mtv_b16.get_config("tasks=vl+ground")
    small = mtv_b16.get_config("tasks=vl+ground,chips=1,hours=24,chip=rtx4090")
    assert whole.objectives.grounding.texts == "full_vocab"
    assert small.batch_size < 2048 and small.objectives.grounding.texts == "unique"
    assert small.objectives.grounding.max_phrases == min(4 * small.batch_size, 2304)


def test_koleo_follows_a_batch_that_128_does_not_divide():
    """4092 is 33 times 124; the change has its note, and the config is a system."""
    config = mtv_b16.get_config("tasks=vl+ssl,chips=3,hours=100,chip=h200")
    assert (config.batch_size, config.objectives.koleo.group_size) == (4092, 124)
    assert any("koleo.group_size 128 -> 124" in note for note in config.notes)
    config.mesh.data = 1
    System(plain(config), devices=jax.devices()[:1])


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match="unknown task 'sll'"):
        mtv_b16.get_config("tasks=vl+sll")
    assert common.TASKS == ("vl", "ssl", "ground", "depth")


def test_groups_that_do_not_divide_the_batch_are_refused():
    config = mtv_b16.get_config("tasks=vl+ssl")
    config.batch_size = 192
    with pytest.raises(UserError, match="koleo compares groups of 128"):
        System(plain(config))


def test_the_whole_recipe_is_traced():
    """Every head is made at the shape it is used with, and the step has every loss."""
    system = _system("B", GRID[-1])
    with jax.set_mesh(system.mesh):
        _, metrics = jax.eval_shape(
            system.train_step, system.abstract_state, system.frozen, system.abstract_batch
        )
    names = ("sigmoid_vl", "self_distill", "masked_pred", "koleo", "grounding", "depth")
    assert {f"{name}/loss" for name in names} < metrics.keys()
    assert system.abstract_state.slots["masked_pred"]["centre"].shape == (32_768,)
