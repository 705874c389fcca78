# SPDX-License-Identifier: Apache-2.0
"""Entries of `evals` that several configs share, every field present."""

from typing import Any

Entry = dict[str, Any]
_MODULES = "mtv_jax.evaluators"


def zeroshot(data: Entry, *, prompts: tuple[str, ...], prompt_list: str = "") -> Entry:
    """Classes by their names."""
    kind = f"{_MODULES}.zeroshot:ZeroShot"
    return dict(type=kind, every=0, data=data, prompts=prompts, prompt_list=prompt_list)


def retrieval(data: Entry, *, gallery: int = 0, captions: int = 1, distinct: bool = True) -> Entry:
    """Images and captions for each other."""
    kind = f"{_MODULES}.retrieval:Retrieval"
    return dict(
        type=kind, every=0, data=data, gallery=gallery, captions=captions, distinct=distinct
    )


def knn(data: Entry, train: Entry) -> Entry:
    """Classes by neighbours."""
    kind = f"{_MODULES}.knn:Knn"
    return dict(type=kind, every=0, data=data, train=train, neighbours=(10, 20), temperature=0.07)


def relative_depth(data: Entry, *, farthest: float = 0.0, **kwargs: Any) -> Entry:
    """Disparity by the model's own depth head."""
    defaults = dict(truth="metric_depth", truth_is="depth", farthest=farthest, objective="depth")
    kind = f"{_MODULES}.relative_depth:HeadDepth"
    return dict(type=kind, every=0, data=data, **(defaults | kwargs))


def ridge_depth(data: Entry, train: Entry) -> Entry:
    """Disparity by regression from frozen features."""
    return dict(
        type=f"{_MODULES}.relative_depth:LinearDepth",
        every=0,
        data=data,
        truth="metric_depth",
        truth_is="depth",
        train=train,
        label="depth",
        farthest=0.0,
        ridge=1e-3,
    )


def seg_probe(data: Entry, train: Entry, *, stride: int, recipe: Entry) -> Entry:
    """Linear segmentation."""
    kind = f"{_MODULES}.seg_probe:SegProbe"
    return dict(type=kind, every=0, data=data, train=train, stride=stride, recipe=recipe)


def depth_probe(data: Entry, train: Entry, *, recipe: Entry, **kwargs: Any) -> Entry:
    """Linear metric depth; `height` and `width` are required."""
    defaults = dict(
        truth="metric_depth", units=1.0, nearest=1e-3, farthest=10.0, bins=256, scale_steps=100
    )
    kind = f"{_MODULES}.depth_probe:DepthProbe"
    return dict(type=kind, every=0, data=data, train=train, recipe=recipe, **(defaults | kwargs))


def two_view(data: Entry, **kwargs: Any) -> Entry:
    """Geometric correspondence, with Probe3D's numbers for NAVI."""
    defaults = dict(
        size=512,
        side=128,
        matches=1000,
        batch_size=8,
        centimetres=(1, 2, 5),
        headline=2,
        pixels=(5, 25, 50),
        degrees=(0, 30, 60, 90, 120),
    )
    kind = f"{_MODULES}.two_view:TwoViewRecall"
    return dict(type=kind, every=0, data=data, **(defaults | kwargs))


def keypoints(data: Entry, **kwargs: Any) -> Entry:
    """Semantic correspondence, with Probe3D's numbers for SPair-71k."""
    defaults = dict(size=800, count=200, threshold=0.1, batch_size=8)
    kind = f"{_MODULES}.keypoints:KeypointRecall"
    return dict(type=kind, every=0, data=data, **(defaults | kwargs))


def heldout(data: Entry, *, every: int = 0) -> Entry:
    """The losses themselves."""
    return dict(type=f"{_MODULES}.heldout:HeldoutLoss", every=every, data=data, batches=4)


def recipe(crops: Entry, **kwargs: Any) -> Entry:
    """How a probe is trained; crops need `height` and `width`, the rest steps, batch and rates."""
    defaults = dict(
        warmup_steps=0,
        schedule="linear",
        momentum="constant",
        weight_decay=0.01,
        clip=0.0,
        seed=0,
        threads=8,
    )
    cut = dict(resize="keep", ratio=(1.0, 1.0), degrees=0.0, flip=0.5, colour="none", one_class=1.0)
    return dict(
        type=f"{_MODULES}.base_probe:Recipe",
        crops=dict(type="input_pipeline.crops:Crops", **(cut | crops)),
        **(defaults | kwargs),
    )
