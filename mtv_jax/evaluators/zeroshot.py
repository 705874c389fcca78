# SPDX-License-Identifier: Apache-2.0
"""Zero-shot classification: the class whose prompts an image is nearest to.

Class vectors are means of unit prompt vectors, renormalised; ties go to the lower class.
"""

import dataclasses
from collections.abc import Collection

import numpy as np
from jaxtyping import Float, Int64

from input_pipeline.eval_set import EvalSet
from mtv_jax.core.errors import UserError
from mtv_jax.evaluators.base import EvalContext, EvalModel, Evaluator


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShot(Evaluator):
    """Top-1 and top-5 accuracy over a store with labels; its manifest names the classes.

    Attributes:
        prompts: templates with one `{}`.
        limit: images used, the first ones; 0 for all.
    """

    prompts: tuple[str, ...] = ("a photo of a {}", "a {}", "{}")
    limit: int = 0

    @property
    def data(self) -> EvalSet:
        return dataclasses.replace(super().data, limit=self.limit)

    def check(self, columns: Collection[str]) -> None:
        super().check(columns)
        self.class_names()
        self.labels()

    def unavailable(self, model: EvalModel) -> str:
        return model.lacks_text()

    def run(self, ctx: EvalContext) -> dict[str, float]:
        scores, labels = self.scores(ctx), self.labels()
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
        names = self.class_names()
        texts = ctx.text_features([p.format(name) for name in names for p in self.prompts])
        classes = texts.reshape(len(names), len(self.prompts), -1).mean(axis=1)
        classes /= np.linalg.norm(classes, axis=-1, keepdims=True)
        return ctx.image_features(self.data) @ classes.T

    def labels(self) -> Int64[np.ndarray, " b"]:
        """The true classes.

        Raises:
            UserError: the store has no column class_id, or a row lacks it.
        """
        values = self.data.column("class_id")
        if missing := sum(value is None for value in values):
            raise UserError(f"{missing} images of the store {self.data} have no class_id")
        return np.asarray([value[0] for value in values], np.int64)

    def class_names(self) -> list[str]:
        """Names of the classes, in label order.

        Raises:
            UserError: the store's manifest names none.
        """
        classes = self.data.provenance.get("classes")
        if not classes:
            raise UserError(
                f"the store {self.store} names no classes in its manifest (provenance.classes); "
                "zero-shot classification needs a labelled store"
            )
        return [c["name"] if isinstance(c, dict) else c for c in classes]
