# SPDX-License-Identifier: Apache-2.0
"""Columns of MTV's tables on the real data sets (MTV section 10); name those you have.

    python -m tools.data.check_eval --config configs/eval/paper.py:imagenet=DIR,coco=DIR
    python -m mtv_jax.evaluate --model b16 --config configs/eval/paper.py:imagenet=DIR,coco=DIR

Folders are as their distributors ship them:

imagenet: folders `train` and `val` of classes; zero-shot top-1.
imagenet_central: the same from the middle of the images, as big_vision measures it.
imagenet_tfds: as imagenet, of images as tensorflow-datasets prepares them.
knn: as imagenet; neighbours, which embeds the training images too.
coco: captions in Karpathy's split; retrieval.
ade20k: ADEChallengeData2016; a linear head is trained for 40,000 steps.
nyu: BTS' files of the official test split; relative depth of the model's own depth head.
nyu_mat: the same from nyu_depth_v2_labeled.mat.
nyu_probe: BTS' training files, the folder `sync`, beside nyu; a linear head, 38,400 steps.
navi, spair: correspondence.
kitti: relative depth on the Eigen split.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import common, common_evals

Eval = dict[str, Any]


def get_config(arg: str | None = None) -> ConfigDict:
    """`imagenet=DIR,ade20k=DIR,…`: the columns of the docstring."""
    columns: Mapping[str, Callable[[Any], Eval]] = {
        "imagenet": lambda roots: _zeroshot(_data("imagenet:ImageNet", roots.imagenet)),
        "imagenet_central": lambda roots: _zeroshot(
            _data("imagenet:ImageNet", roots.imagenet_central, central=0.875)
        ),
        "imagenet_tfds": lambda roots: _zeroshot(
            _data("imagenet_tfds:ImageNetTfds", roots.imagenet_tfds)
        ),
        "knn": _knn,
        "coco": _retrieval,
        "ade20k": _ade20k,
        "nyu": lambda roots: _depth("metric_depth:NyuDepth", roots.nyu, 10.0),
        "nyu_mat": lambda roots: _depth("nyu_mat:NyuMat", roots.nyu_mat, 10.0),
        "nyu_probe": _nyu_probe,
        "navi": _navi,
        "spair": _spair,
        "kitti": lambda roots: _depth("metric_depth:KittiEigen", roots.kitti, 80.0),
    }
    roots = common.parse_arg(arg, **dict.fromkeys(columns, ""))
    evals = {name: column(roots) for name, column in columns.items() if roots[name]}
    return ConfigDict(dict(evals=evals))


def _zeroshot(data: Eval) -> Eval:
    """With the 81 prompts of big_vision."""
    return common_evals.zeroshot(data, prompts=("{}",), prompt_list="OPENAI_IMAGENET_TEMPLATES")


def _knn(roots: Any) -> Eval:
    val, train = (_data("imagenet:ImageNet", roots.knn, split=s) for s in ("val", "train"))
    return common_evals.knn(val, train)


def _retrieval(roots: Any) -> Eval:
    data = _data("coco:CocoCaptions", roots.coco, split="test")
    return common_evals.retrieval(data, captions=5, distinct=False)


def _ade20k(roots: Any) -> Eval:
    """The learning rate that the paper prints, and the usual one."""
    crops = dict(
        height=576,
        width=576,
        resize="short",
        ratio=(0.5, 2.0),
        colour="distort",
        one_class=0.75,
    )
    recipe = common_evals.recipe(
        crops,
        steps=40_000,
        batch_size=32,
        lrs=(4e-5, 1e-3),
        warmup_steps=1500,
        weight_decay=1e-4,
    )
    data, train = (
        _data("ade20k:Ade20k", roots.ade20k, split=split) for split in ("validation", "training")
    )
    return common_evals.seg_probe(data, train, stride=384, recipe=recipe)


def _nyu_probe(roots: Any) -> Eval:
    if not roots.nyu:
        raise ValueError("nyu_probe=DIR is what the probe is trained on; name nyu=DIR beside it")
    recipe = common_evals.recipe(
        dict(height=416, width=544, degrees=2.5, colour="tint"),
        steps=38_400,
        batch_size=16,
        lrs=(1e-4,),
        warmup_steps=12_800,
        schedule="cosine",
        momentum="one_cycle",
        clip=35.0,
    )
    test = _data("metric_depth:NyuDepth", roots.nyu)
    train = _data("metric_depth:NyuTrain", roots.nyu_probe)
    return common_evals.depth_probe(test, train, recipe=recipe, height=480, width=640)


def _navi(roots: Any) -> Eval:
    return common_evals.two_view(_data("navi:Navi", roots.navi, thing=""))


def _spair(roots: Any) -> Eval:
    return common_evals.keypoints(_data("spair:Spair", roots.spair, split="test", category=""))


def _depth(kind: str, root: str, farthest: float) -> Eval:
    return common_evals.relative_depth(_data(kind, root), farthest=farthest)


def _data(kind: str, root: str, **kwargs: Any) -> Eval:
    return dict(type=f"input_pipeline.layouts.{kind}", root=root, limit=0, **kwargs)
