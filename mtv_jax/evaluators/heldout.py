# SPDX-License-Identifier: Apache-2.0
"""Every objective's own loss on images it was not trained on, at the training batch size."""

import dataclasses
import itertools
from collections.abc import Collection

import numpy as np

from input_pipeline.eval_set import EvalSet
from mtv_jax.core.config import at_least
from mtv_jax.evaluators.base import EvalContext, EvalModel, Evaluator

# What a model reaches that does not look at the image: an objective has one of them, or none.
_BLIND = {"blind_loss", "strange_loss"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldoutLoss(Evaluator):
    """Mean losses over some batches, drawn, cut and masked as training would.

    Attributes:
        data: rows of a store: whatever training reads.
        batches: batches averaged.
    """

    data: EvalSet
    batches: int = at_least(1, 4)

    def check(self, columns: Collection[str]) -> None:
        super().check(columns)
        for name in columns:
            self.data.require(name)

    def unavailable(self, model: EvalModel) -> str:
        return "" if model.losses else "an exported model lacks most heads of its objectives"

    def run(self, ctx: EvalContext) -> dict[str, float]:
        losses_of = ctx.model.losses
        assert losses_of is not None
        sums: dict[str, list[float]] = {}
        for losses in itertools.islice(losses_of(self.data, self.batches), self.batches):
            ctx.poll()
            for name, out in losses.items():
                sums.setdefault(name, []).append(float(out.loss))
                for blind in _BLIND & out.metrics.keys():
                    sums.setdefault(f"{name}/chance", []).append(float(out.metrics[blind]))
        return {name: float(np.mean(values)) for name, values in sums.items()}
