# SPDX-License-Identifier: Apache-2.0
"""Columns of MTV's tables 3 and 6 on the real data sets (MTV section 10); name those you have.

python -m tools.data.check_eval --config configs/eval/paper.py:imagenet=DIR,coco=DIR
python -m mtv_jax.evaluate --model b16 --config configs/eval/paper.py:imagenet=DIR,coco=DIR
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    """`imagenet=DIR,coco=DIR,navi=DIR,spair=DIR,nyu=DIR,kitti=DIR`: as they are distributed."""
    columns = {
        "imagenet": _zeroshot,
        "coco": _retrieval,
        "navi": _navi,
        "spair": _spair,
        "nyu": _nyu,
        "kitti": _kitti,
    }
    roots = common.parse_arg(arg, **dict.fromkeys(columns, ""))
    evals = {name: column(roots[name]) for name, column in columns.items() if roots[name]}
    return ConfigDict(dict(evals=evals))


def _zeroshot(root: str) -> dict[str, Any]:
    return dict(
        type="mtv_jax.evaluators.zeroshot:ZeroShot",
        every=0,
        data=_data("imagenet:ImageNet", root, split="val"),
        prompts=(),
        prompt_list="OPENAI_IMAGENET_TEMPLATES",
    )


def _retrieval(root: str) -> dict[str, Any]:
    return dict(
        type="mtv_jax.evaluators.retrieval:Retrieval",
        every=0,
        data=_data("coco:CocoCaptions", root, split="test"),
        gallery=0,
        captions=5,
        distinct=False,
    )


def _navi(root: str) -> dict[str, Any]:
    return dict(
        type="mtv_jax.evaluators.navi:NaviRecall",
        every=0,
        data=_data("navi:Navi", root, thing=""),
        side=128,
        matches=1000,
        batch_size=8,
    )


def _spair(root: str) -> dict[str, Any]:
    return dict(
        type="mtv_jax.evaluators.spair:SpairRecall",
        every=0,
        data=_data("spair:Spair", root, split="test", category=""),
        size=800,
        count=200,
        threshold=0.1,
        batch_size=8,
    )


def _nyu(root: str) -> dict[str, Any]:
    return _relative_depth(_data("metric_depth:NyuDepth", root, pairs="nyu_test.txt"), 10.0)


def _kitti(root: str) -> dict[str, Any]:
    data = _data("metric_depth:KittiEigen", root, pairs="kitti_eigen_test.txt")
    return _relative_depth(data, 80.0)


def _relative_depth(data: dict[str, Any], farthest: float) -> dict[str, Any]:
    return dict(
        type="mtv_jax.evaluators.relative_depth:HeadDepth",
        every=0,
        data=data,
        truth="metric_depth",
        truth_is="depth",
        farthest=farthest,
        objective="depth",
    )


def _data(kind: str, root: str, **kwargs: Any) -> dict[str, Any]:
    return dict(type=f"input_pipeline.layouts.{kind}", root=root, limit=0, **kwargs)
