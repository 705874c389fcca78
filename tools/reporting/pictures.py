# SPDX-License-Identifier: Apache-2.0
"""What a run's model makes of held-out images and captions, as pictures.

The evaluators of the run's config say which store, prompts and gallery to show. Rows are spread
evenly over the data, never chosen by outcome.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mtv_jax import drawing
from mtv_jax.core.errors import UserError
from mtv_jax.drawing import NEAR, RIGHT, SIDE, WRONG, Text

if TYPE_CHECKING:
    from mtv_jax.evaluators.base import EvalContext, Evaluator
    from mtv_jax.evaluators.relative_depth import HeadDepth
    from mtv_jax.evaluators.retrieval import Retrieval
    from mtv_jax.evaluators.zeroshot import ZeroShot

_CLASSIFIED = 24  # images of the zero-shot grid
_DEPTHS = 12  # images of the depth sheet
_QUERIES = 6  # captions, and images, of the retrieval pictures
_TOP_CLASSES, _TOP_IMAGES, _TOP_CAPTIONS = 3, 5, 3
_ACROSS = 8
_WIDE = 4 * SIDE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture: file name without suffix, what it shows, the pixels."""

    name: str
    caption: str
    image: Image.Image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures, and why there are not more of them."""

    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()


def draw_gallery(
    workdir: pathlib.Path, config: Mapping[str, Any], trusted: Sequence[str]
) -> Gallery:
    """Pictures by the newest checkpoint of a run; what cannot be drawn is noted, not raised."""
    try:
        evaluators, context = restore(workdir, config, trusted)
    except UserError as error:
        return Gallery(notes=(f"No pictures: {error}",))
    pictures: list[Picture] = []
    notes: list[str] = []
    for evaluator in evaluators:
        try:
            pictures += draw(evaluator, context)
        except UserError as error:
            notes.append(f"No pictures of {evaluator.name}: {error}")
    if not pictures and not notes:
        notes.append("No pictures: no evaluator of the config has pictures of this model.")
    return Gallery(pictures=tuple(pictures), notes=tuple(notes))


def restore(
    workdir: pathlib.Path, config: Mapping[str, Any], trusted: Sequence[str]
) -> "tuple[Sequence[Evaluator], EvalContext]":
    """The evaluators of a run and its newest checkpoint, on whatever devices are here.

    Raises:
        UserError: no checkpoint, or a config or tokenizer that cannot be.
    """
    from mtv_jax.reopen import restored

    system, state = restored(workdir, config, trusted=tuple(trusted))
    return system.evaluators, system.eval_context(state)


def draw(evaluator: "Evaluator", ctx: "EvalContext") -> list[Picture]:
    """Pictures of what an evaluator measures; none for kinds that have no picture."""
    from mtv_jax.evaluators.relative_depth import HeadDepth
    from mtv_jax.evaluators.retrieval import Retrieval
    from mtv_jax.evaluators.zeroshot import ZeroShot

    if evaluator.unavailable(ctx.model):
        return []
    if isinstance(evaluator, HeadDepth):
        return [_depths(evaluator, ctx)]
    if isinstance(evaluator, ZeroShot):
        return [_classified(evaluator, ctx)]
    if isinstance(evaluator, Retrieval):
        return _retrieved(evaluator, ctx)
    return []


def _classified(evaluator: "ZeroShot", ctx: "EvalContext") -> Picture:
    names, labels = evaluator.data.class_names(), evaluator.data.labels()
    scores = evaluator.scores(ctx)
    cells = [
        _class_cell(_image(evaluator, row), scores[row], labels[row], names)
        for row in _spread(len(labels), _CLASSIFIED)
    ]
    return Picture(
        name=evaluator.name,
        caption=f"{evaluator.name}: held-out images, their true class, and the model's "
        f"{_TOP_CLASSES} nearest of {len(names)} classes with cosines. Green: first is right; "
        "amber: among them; red: not.",
        image=drawing.grid(cells, _ACROSS),
    )


def _class_cell(
    picture: Image.Image, scores: np.ndarray, label: int, names: Sequence[str]
) -> Image.Image:
    top = _best(scores, _TOP_CLASSES)
    color = RIGHT if top[0] == label else NEAR if label in top else WRONG
    guesses = [
        Text(f"{names[k]} {scores[k]:.2f}", RIGHT if k == label else drawing.PLAIN) for k in top
    ]
    lines = [Text(f"true: {names[label]}", "black"), *guesses]
    return drawing.column([drawing.framed(picture, color), drawing.text_box(lines, SIDE, 62)])


def _depths(evaluator: "HeadDepth", ctx: "EvalContext") -> Picture:
    from mtv_jax.evaluators.relative_depth import absrel

    predicted = list(evaluator.predictions(ctx))
    cells = []
    for row in _spread(len(predicted), _DEPTHS):
        truth = evaluator.true_map(row)
        shape = (truth.shape[1], truth.shape[0])
        guess = drawing.colored(predicted[row]).resize(shape, Image.Resampling.BICUBIC)
        # The sky has no distance; black is as far as it gets.
        panels = [_image(evaluator, row), drawing.colored(truth), guess]
        label = drawing.text_box([Text(f"AbsRel {absrel(predicted[row], truth):.2f}")], SIDE, 24)
        cells.append(drawing.column([drawing.row([drawing.framed(p) for p in panels]), label]))
    return Picture(
        name=evaluator.name,
        caption=f"{evaluator.name}: held-out images, their true disparity, and what the model "
        "predicts; light is near, each map has its own scale, what has no truth is black. AbsRel "
        "is the error after the affine fit.",
        image=drawing.grid(cells, 2),
    )


def _retrieved(evaluator: "Retrieval", ctx: "EvalContext") -> list[Picture]:
    rows, texts, owners = evaluator.searched()
    captions = [texts[first] for first in np.unique(owners, return_index=True)[1]]
    scores = ctx.image_features(evaluator.data)[rows] @ ctx.text_features(captions).T
    queries = _spread(len(rows), _QUERIES)

    def image(place: int) -> Image.Image:
        return _image(evaluator, rows[place])

    by_text = [_image_row(q, scores[:, q], captions[q], image) for q in queries]
    by_image = [_caption_row(q, scores[q], captions, image(q)) for q in queries]
    return [
        Picture(
            name=f"{evaluator.name}_text_to_image",
            caption=f"{evaluator.name}: captions and their {_TOP_IMAGES} nearest of "
            f"{len(rows)} images with cosines. Green: the caption's own; red: its own where it is "
            "not among them.",
            image=drawing.column(by_text),
        ),
        Picture(
            name=f"{evaluator.name}_image_to_text",
            caption=f"{evaluator.name}: images, their own caption, and the {_TOP_CAPTIONS} "
            f"nearest of {len(rows)} captions with cosines. Green: its own.",
            image=drawing.grid(by_image, 2),
        ),
    ]


def _image_row(
    query: int, scores: np.ndarray, caption: str, image: Callable[[int], Image.Image]
) -> Image.Image:
    """The caption, its nearest images, and its own one at the end when it is not among them."""
    top = _best(scores, _TOP_IMAGES)
    cells = [_image_cell(image(k), f"{scores[k]:.2f}", RIGHT if k == query else "") for k in top]
    if query not in top:
        label = f"own, rank {_rank(scores, query)}: {scores[query]:.2f}"
        cells.append(_image_cell(image(query), label, WRONG))
    box = drawing.text_box([Text(caption, "black")], 6 * SIDE, 30)
    return drawing.column([box, drawing.row(cells)])


def _image_cell(picture: Image.Image, label: str, color: str) -> Image.Image:
    box = drawing.text_box([Text(label)], SIDE, 24)
    return drawing.column([drawing.framed(picture, color or "white"), box])


def _caption_row(
    query: int, scores: np.ndarray, captions: Sequence[str], picture: Image.Image
) -> Image.Image:
    top = _best(scores, _TOP_CAPTIONS)
    color = RIGHT if top[0] == query else NEAR if query in top else WRONG
    own = Text(f"own (rank {_rank(scores, query)}): {captions[query]}", "black")
    guesses = [
        Text(f"{scores[k]:.2f} {captions[k]}", RIGHT if k == query else drawing.PLAIN) for k in top
    ]
    box = drawing.text_box([own, *guesses], _WIDE - SIDE, SIDE)
    return drawing.row([drawing.framed(picture, color), box])


def _image(evaluator: "Evaluator", index: int) -> Image.Image:
    """A stored image of the set that the evaluator measures."""
    return Image.fromarray(evaluator.data.image(index))


def _spread(count: int, wanted: int) -> list[int]:
    return np.linspace(0, count - 1, min(count, wanted)).astype(int).tolist()


def _best(scores: np.ndarray, count: int) -> list[int]:
    return np.argsort(-scores, kind="stable")[:count].tolist()


def _rank(scores: np.ndarray, own: int) -> int:
    """1 for the best; ties count against it, as in the measure."""
    return int((scores >= scores[own]).sum())
