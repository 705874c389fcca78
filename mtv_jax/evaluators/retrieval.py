# SPDX-License-Identifier: Apache-2.0
"""Image-text retrieval by cosine.

An image may have several captions, as in COCO's Karpathy split (MTV section 10): image to text, a
hit is any of its own among the first k of all captions; text to image, its image among the first k
of all images. Whatever scores as high as the right answer counts as better.
"""

import dataclasses
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from input_pipeline.tokenizer import canonicalize
from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError
from mtv_jax.evaluators.base import EvalContext, EvalModel, Evaluator

_KS = (1, 5, 10)


class Gallery(NamedTuple):
    """What is searched.

    Attributes:
        rows: images, as rows of the data.
        captions: of all of them, an image's captions in sequence.
        owners: per caption, the place of its image in `rows`.
    """

    rows: list[int]
    captions: list[str]
    owners: Int64[np.ndarray, " m"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval(Evaluator):
    """R@1, R@5 and R@10, text to image and image to text.

    Attributes:
        gallery: images used, first come first; 0 for all there are.
        captions: most captions of an image, its first ones.
        distinct: leave out images of which a caption has been seen, as made data repeat them.
    """

    gallery: int = at_least(0, 0)
    captions: int = at_least(1, 1)
    distinct: bool = True

    def check(self, columns: Collection[str]) -> None:
        super().check(columns)
        self.searched()

    def unavailable(self, model: EvalModel) -> str:
        return model.lacks_text()

    def run(self, ctx: EvalContext) -> dict[str, float]:
        rows, captions, owners = self.searched()
        scores = ctx.image_features(self.data)[rows] @ ctx.text_features(captions).T
        numbers = {"gallery": float(len(rows)), "captions": float(len(captions))}
        shares = np.bincount(owners) / len(captions)  # of all captions, an image's own
        of_images, of_captions = ranks_of_images(scores, owners), ranks_of_captions(scores, owners)
        for k in _KS:
            numbers[f"i2t_r{k}"] = float((of_images < k).mean())
            numbers[f"i2t_r{k}/chance"] = float(_hit_by_chance(shares, len(captions), k).mean())
            numbers[f"t2i_r{k}"] = float((of_captions < k).mean())
            numbers[f"t2i_r{k}/chance"] = min(k / len(rows), 1.0)
        return numbers

    def searched(self) -> Gallery:
        """The gallery; captions are canonical.

        Raises:
            UserError: there are fewer images with captions than the gallery has.
        """
        rows: list[int] = []
        captions: list[str] = []
        owners: list[int] = []
        seen: set[str] = set()
        for row, values in enumerate(self.data.captions()):
            texts = [text for text in map(canonicalize, values[: self.captions]) if text]
            if not texts or (self.distinct and not seen.isdisjoint(texts)):
                continue
            seen.update(texts)
            captions += texts
            owners += [len(rows)] * len(texts)
            rows.append(row)
            if len(rows) == self.gallery:
                break
        if not rows or len(rows) < self.gallery:
            kind = "distinct captions" if self.distinct else "images with captions"
            raise UserError(
                f"{self.data} has {len(rows)} {kind}, fewer than the gallery of "
                f"{self.gallery or 1}; give more data or a smaller gallery"
            )
        return Gallery(rows, captions, np.asarray(owners))


def ranks_of_images(
    scores: Float[np.ndarray, "n m"], owners: Int64[np.ndarray, " m"]
) -> Int64[np.ndarray, " n"]:
    """Per image: how many captions of others do not score below the best of its own."""
    own = owners == np.arange(len(scores))[:, None]
    best = np.where(own, scores, -np.inf).max(axis=1, keepdims=True)
    return (~(scores < best) & ~own).sum(axis=1)


def ranks_of_captions(
    scores: Float[np.ndarray, "n m"], owners: Int64[np.ndarray, " m"]
) -> Int64[np.ndarray, " m"]:
    """Per caption: how many other images do not score below its own."""
    own = scores[owners, np.arange(len(owners))]
    return (~(scores < own)).sum(axis=0) - 1


def _hit_by_chance(shares: Float[np.ndarray, " n"], total: int, k: int) -> np.ndarray:
    """Of k captions drawn from `total`, that one is among an image's own (a share of them)."""
    missed = np.ones_like(shares)
    for drawn in range(min(k, total)):
        missed *= np.maximum(total * (1 - shares) - drawn, 0) / (total - drawn)
    return 1 - missed
