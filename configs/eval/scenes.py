# SPDX-License-Identifier: Apache-2.0
"""Every column of MTV's table 3 in miniature, on made scenes, whose labels are exact.

    python -m mtv_jax.evaluate --workdir runs/quickstart --config configs/eval/scenes.py
    python -m mtv_jax.evaluate --model b16 --config configs/eval/scenes.py:size=224

Probes are trained on the first half of the test scenes and scored on the second: training scenes
have neither segments nor metric depth. Thresholds fit 8 x 8 patches of 64 pixels.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common, common_evals

_SCENES = ("scene_v1",)


def get_config(arg: str | None = None) -> ConfigDict:
    """`data=DIR` holds the stores train and test, `size` is the side of what a model sees."""
    options = common.parse_arg(arg, data="data/quickstart", size=64, scenes=800, steps=300)
    train, test = f"{options.data}/train", f"{options.data}/test"
    half = options.scenes // 2
    labelled = (common.REGIONS_SIDECAR, common.DEPTH_SIDECAR)
    heldout = common.eval_data(test, sidecars=labelled, limit=options.scenes)
    scenes = common.eval_data(test, sidecars=_SCENES, limit=options.scenes)
    voters = common.eval_data(train, sidecars=(common.DEPTH_SIDECAR,), limit=2000)
    first = common.eval_data(test, sidecars=_SCENES, limit=half)
    second = common.eval_data(test, sidecars=_SCENES, skip=half, limit=options.scenes - half)
    evals = dict(
        zeroshot=common_evals.zeroshot(heldout, prompts=("a {}", "a photo of a {}", "{}")),
        knn=common_evals.knn(heldout, common.eval_data(train, limit=2000)),
        retrieval=common_evals.retrieval(heldout, gallery=500),
        segments=_segments(second, first, options),
        metric_depth=_metric_depth(second, first, options),
        two_view=_two_view(test, options),
        keypoints=_keypoints(test, options),
        depth=common_evals.relative_depth(scenes, train=voters, label="depth"),
        depth_ridge=common_evals.ridge_depth(scenes, voters),
        heldout=common_evals.heldout(heldout),
    )
    return ConfigDict(dict(evals=evals))


def _segments(data: dict[str, Any], train: dict[str, Any], options: ConfigDict) -> dict[str, Any]:
    recipe = common_evals.recipe(
        dict(
            height=options.size,
            width=options.size,
            resize="short",
            ratio=(0.8, 1.25),
            one_class=0.75,
        ),
        steps=options.steps,
        batch_size=32,
        lrs=(1e-2,),
        warmup_steps=options.steps // 20,
        weight_decay=1e-4,
    )
    return common_evals.seg_probe(data, train, stride=options.size * 2 // 3, recipe=recipe)


def _metric_depth(
    data: dict[str, Any], train: dict[str, Any], options: ConfigDict
) -> dict[str, Any]:
    side = dict(height=options.size, width=options.size)
    recipe = common_evals.recipe(
        dict(**side, resize="squash"),
        steps=options.steps,
        batch_size=16,
        lrs=(1e-3,),
        warmup_steps=options.steps // 10,
        schedule="cosine",
        momentum="one_cycle",
        clip=35.0,
    )
    return common_evals.depth_probe(data, train, recipe=recipe, **side, units=1000.0, scale_steps=0)


def _two_view(test: str, options: ConfigDict) -> dict[str, Any]:
    """Two views differ by 5 to 40 degrees."""
    kind = "input_pipeline.scene_views:SceneViews"
    return common_evals.two_view(
        dict(type=kind, store=test, selection="", limit=min(options.scenes, 200)),
        size=options.size,
        side=options.size // 2,
        matches=100,
        batch_size=64,
        centimetres=(5, 10, 20),
        headline=10,
        pixels=(2, 4, 8),
        degrees=(0, 15, 30, 50),
    )


def _keypoints(test: str, options: ConfigDict) -> dict[str, Any]:
    """A fifth of the object's box: a patch stands for its upper left corner, and they are wide."""
    kind = "input_pipeline.scene_parts:SceneParts"
    return common_evals.keypoints(
        dict(type=kind, store=test, selection="", limit=options.scenes, category=""),
        size=options.size,
        count=50,
        threshold=0.2,
        batch_size=32,
    )
