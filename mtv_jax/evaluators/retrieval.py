# SPDX-License-Identifier: Apache-2.0
"""Image-text retrieval by cosine on a gallery of distinct captions."""

import dataclasses
from collections.abc import Collection

import numpy as np

from input_pipeline.tokenizer import canonicalize
from mtv_jax.core.errors import UserError
from mtv_jax.evaluators.base import EvalContext, EvalModel, Evaluator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval(Evaluator):
    """R@1, R@5 and R@10, text to image and image to text.

    Attributes:
        gallery: images with pairwise distinct captions, first come first; 0 for all there are.
    """

    gallery: int = 0

    def check(self, columns: Collection[str]) -> None:
        super().check(columns)
        self.distinct()

    def unavailable(self, model: EvalModel) -> str:
        return model.lacks_text()

    def run(self, ctx: EvalContext) -> dict[str, float]:
        rows, captions = self.distinct()
        images = ctx.image_features(self.data)[rows]
        scores = images @ ctx.text_features(captions).T
        numbers: dict[str, float] = {"gallery": float(len(rows))}
        for direction, matrix in (("i2t", scores), ("t2i", scores.T)):
            rank = own_ranks(matrix)
            for k in (1, 5, 10):
                numbers[f"{direction}_r{k}"] = float((rank < k).mean())
                numbers[f"{direction}_r{k}/chance"] = min(k / len(rows), 1.0)
        return numbers

    def distinct(self) -> tuple[list[int], list[str]]:
        """Rows of the gallery and their captions, canonical.

        Raises:
            UserError: the store has fewer distinct captions than the gallery.
        """
        rows: list[int] = []
        captions: dict[str, None] = {}
        for row, value in enumerate(self.data.column("caption")):
            text = canonicalize(value[0].decode()) if value else ""
            if text and text not in captions:
                rows.append(row)
                captions[text] = None
            if len(rows) == self.gallery:
                break
        if self.gallery and len(rows) < self.gallery:
            raise UserError(
                f"the store {self.data} has {len(rows)} distinct captions, fewer than the "
                f"gallery of {self.gallery}; make the store larger or the gallery smaller"
            )
        return rows, list(captions)


def own_ranks(scores: np.ndarray) -> np.ndarray:
    """Per row: how many other columns do not score below the row's own (ties and NaN count)."""
    own = np.diagonal(scores)[:, None]
    return (~(scores < own)).sum(axis=1) - 1
