# SPDX-License-Identifier: Apache-2.0
"""Zero-shot classification: the class whose prompts an image is nearest to.

Class vectors are means of unit prompt vectors, renormalised; ties go to the lower class. Prompts
are canonical (lower case, no punctuation) for every tokenizer, as big_vision has them.
"""

import dataclasses
from collections.abc import Collection

import numpy as np
from jaxtyping import Float

from input_pipeline.layouts.clip_lists import clip_list
from input_pipeline.tokenizer import canonicalize
from mtv_jax.evaluators.base import EvalContext, EvalModel, Evaluator


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShot(Evaluator):
    """Top-1 and top-5 accuracy over images whose classes have names.

    Attributes:
        prompts: templates with one `{}`.
        prompt_list: a list of CLIP's prompts before them, such as OPENAI_IMAGENET_TEMPLATES, which
            with "{}" behind it are the 81 that big_vision uses.
    """

    prompts: tuple[str, ...] = ("a photo of a {}", "a {}", "{}")
    prompt_list: str = ""

    def check(self, columns: Collection[str]) -> None:
        super().check(columns)
        self.data.class_names()
        self.data.labels()
        self.templates()

    def templates(self) -> tuple[str, ...]:
        """The prompts, wherever they come from."""
        published = clip_list(self.prompt_list) if self.prompt_list else []
        return (*published, *self.prompts)

    def unavailable(self, model: EvalModel) -> str:
        return model.lacks_text()

    def run(self, ctx: EvalContext) -> dict[str, float]:
        scores, labels = self.scores(ctx), self.data.labels()
        ranked = np.argsort(-scores, axis=1, kind="stable")
        hits = (ranked == labels[:, None]) & np.isfinite(scores).all(axis=1, keepdims=True)
        chance = 1.0 / scores.shape[1]
        return {
            "top1": float(hits[:, 0].mean()),
            "top1/chance": chance,
            "top5": float(hits[:, :5].any(axis=1).mean()),
            "top5/chance": min(5 * chance, 1.0),
            "classes": float(scores.shape[1]),
            "images": float(len(labels)),
        }

    def scores(self, ctx: EvalContext) -> Float[np.ndarray, "b c"]:
        """Cosine of every image with every class."""
        names, templates = self.data.class_names(), self.templates()
        prompts = [canonicalize(p.format(name)) for name in names for p in templates]
        texts = ctx.text_features(prompts).reshape(len(names), len(templates), -1)
        classes = texts.mean(axis=1)
        classes /= np.linalg.norm(classes, axis=-1, keepdims=True)
        return ctx.image_features(self.data) @ classes.T
