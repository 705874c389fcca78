# SPDX-License-Identifier: Apache-2.0
"""Local crops against the teacher's view of the whole (MTV section 4.2; DINO, arXiv 2104.14294).

    L = -1/(B M) Σ_i Σ_m Σ_k q_ik log_softmax(p_im / τ_s)_k

p_im are prototype scores of the pooled vector of local crop m of image i, q_i the teacher's targets
from its pooled vector of the global crop (`base_prototypes`). There is one global crop, so none of
DINO's terms between global crops.
"""

import dataclasses

from mtv_jax.core.passes import Pass, Plan, Wants, wanted
from mtv_jax.objectives.base import Context
from mtv_jax.objectives.base_prototypes import Pairs, PrototypeObjective


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfDistill(PrototypeObjective):
    """Pooled vectors of local crops against the teacher's of the global one.

    Attributes:
        local_view: a view of one or more crops per image.
    """

    local_view: str = "local_crops"

    @property
    def local_pass(self) -> Pass:
        return Pass(tower="image", view=self.local_view)

    def passes(self) -> Plan:
        return {self.local_pass: Wants(pooled=True), self.teacher: Wants(pooled=True)}

    def pairs(self, ctx: Context) -> Pairs:
        crops, whole = wanted(ctx.of(self.local_pass).pooled), wanted(ctx.of(self.teacher).pooled)
        students = crops.reshape(len(whole), 1, -1, whole.shape[-1])
        return Pairs(students=students, teachers=whole[:, None])
