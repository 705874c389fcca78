# SPDX-License-Identifier: Apache-2.0
"""k nearest neighbours: classes of labelled images vote for those of others.

The weighted vote of DINO (arXiv 2104.14294, appendix F, after 1805.01978): a neighbour of cosine s
counts exp(s / temperature). Ties go to the lower class.
"""

import dataclasses
from collections.abc import Collection

import numpy as np
from jaxtyping import Float, Int64

from input_pipeline.eval_data import EvalData
from mtv_jax.core.errors import UserError
from mtv_jax.dist.nearest import nearest
from mtv_jax.evaluators.base import EvalContext, EvalModel, Evaluator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knn(Evaluator):
    """Top-1 accuracy by number of neighbours.

    Attributes:
        train: the images that vote, with labels of the same classes.
        neighbours: numbers of neighbours, each measured.
        temperature: of the votes.
    """

    train: EvalData
    neighbours: tuple[int, ...] = (10, 20)
    temperature: float = 0.07

    def check(self, columns: Collection[str]) -> None:
        super().check(columns)
        self.train.open()
        self.data.labels()
        if len(self.train.labels()) < max(self.neighbours):
            raise UserError(
                f"{self.train} has {len(self.train)} images, fewer than the {max(self.neighbours)} "
                f"neighbours that evals.{self.name} asks for"
            )

    def unavailable(self, model: EvalModel) -> str:
        return model.lacks_pooled()

    def run(self, ctx: EvalContext) -> dict[str, float]:
        voters, labels = self.train.labels(), self.data.labels()
        images, bank = ctx.image_features(self.data), ctx.image_features(self.train)
        found = nearest(ctx.mesh, images, bank, max(self.neighbours))
        sound = np.isfinite(found.scores).all(axis=1)
        numbers: dict[str, float] = {}
        for k in self.neighbours:
            votes = self.votes(found.scores[:, :k], voters[found.rows[:, :k]])
            hits = (votes.argmax(axis=1) == labels) & sound
            numbers[f"top1_k{k}"] = float(hits.mean())
            numbers[f"top1_k{k}/chance"] = float((labels == np.bincount(voters).argmax()).mean())
        return {**numbers, "images": float(len(labels)), "voters": float(len(voters))}

    def votes(
        self, scores: Float[np.ndarray, "b k"], labels: Int64[np.ndarray, "b k"]
    ) -> Float[np.ndarray, "b c"]:
        """Weighted votes for every class."""
        votes = np.zeros((len(scores), labels.max() + 1))
        best = scores[:, :1]  # a common factor, lest exp overflow
        weights = np.exp((scores - best).astype(np.float64) / self.temperature)
        np.add.at(votes, (np.arange(len(scores))[:, None], labels), weights)
        return votes
