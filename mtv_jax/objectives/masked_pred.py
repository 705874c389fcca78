# SPDX-License-Identifier: Apache-2.0
"""Masked patches against the teacher's tokens (MTV section 4.2; iBOT, arXiv 2111.07832).

    L = -1/B Σ_i 1/|M_i| Σ_{j∈M_i} Σ_k q_ijk log_softmax(p_ij / τ_s)_k

The student sees the global crop with the patches M_i replaced by a mask token, the teacher sees it
whole; p_ij and q_ij come from their final tokens at the same place (`base_prototypes`). Exactly
half of the patches are masked, uniformly, in every image (DINOv2: blocks, in half of the images):
that keeps shapes static. Only masked tokens enter the heads.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Shaped

from mtv_jax.core.errors import UserError
from mtv_jax.core.passes import Pass, Plan, Wants, wanted
from mtv_jax.objectives.base import Context
from mtv_jax.objectives.base_prototypes import Pairs, PrototypeObjective
from mtv_jax.views.batch import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedPred(PrototypeObjective):
    """Tokens of masked patches against the teacher's.

    Attributes:
        masked: share of patches, rounded down to a whole number of them.
    """

    masked: float = 0.5

    @property
    def masked_pass(self) -> Pass:
        return Pass(tower="image", view=self.image_view, patch_mask=f"{self.name}/patch_mask")

    def derive(self, batch: Batch, keys: Key[Array, " b"]) -> dict[str, Shaped[Array, "b ..."]]:
        count = batch.grid(self.image_view) ** 2
        draws = jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys)
        order = jnp.argsort(draws, axis=-1)
        rank = jnp.argsort(order, axis=-1)
        number = int(self.masked * count)
        if not 0 < number < count:
            raise UserError(
                f"objectives.{self.name}.masked {self.masked} is {number} of {count} patches; "
                "mask some and leave some"
            )
        return {
            f"{self.name}/patch_mask": rank < number,
            f"{self.name}/patches": order[:, :number],
        }

    def passes(self) -> Plan:
        return {self.masked_pass: Wants(tokens=True), self.teacher: Wants(tokens=True)}

    def pairs(self, ctx: Context) -> Pairs:
        patches = ctx.batch.inputs[f"{self.name}/patches"][..., None]
        students, teachers = (
            jnp.take_along_axis(wanted(ctx.of(request).tokens), patches, axis=1)
            for request in (self.masked_pass, self.teacher)
        )
        return Pairs(students=students[:, :, None], teachers=teachers)
