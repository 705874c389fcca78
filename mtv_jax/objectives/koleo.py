# SPDX-License-Identifier: Apache-2.0
"""Spread of pooled vectors (KoLeo, arXiv 1806.03198; MTV section 4.2, DINOv2).

    L = -1/n Σ_i log ‖x_i - x_NN(i)‖,   x = v / ‖v‖,   NN(i) the nearest other vector of the group

Groups are fixed runs of consecutive samples, so that its strength depends neither on devices nor on
the batch. A sample without another in its group takes no part, and a record is no neighbour of
itself. Distances are bounded below: two equal images would pull infinitely.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from mtv_jax.core.config import at_least
from mtv_jax.core.fields import IMAGE, Field
from mtv_jax.core.masking import masked_mean
from mtv_jax.core.passes import Pass, Plan, Wants, wanted
from mtv_jax.nn.contrast import normalize
from mtv_jax.objectives.base import Alarm, Context, LossOut, Objective, Outputs

_LEAST_DISTANCE = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True)
class KoLeo(Objective):
    """Pushes every pooled vector away from its nearest neighbour.

    Attributes:
        image_view: whose pooled vectors.
        group_size: consecutive samples among which neighbours are sought.
    """

    image_view: str = "global_crop"
    group_size: int = at_least(1, 128)

    @property
    def image_pass(self) -> Pass:
        return Pass(tower="image", view=self.image_view)

    def fields(self) -> tuple[Field, ...]:
        return (IMAGE,)

    def passes(self) -> Plan:
        return {self.image_pass: Wants(pooled=True)}

    def loss_group(self) -> int:
        return self.group_size

    def project(self, ctx: Context) -> Outputs:
        vector = normalize(wanted(ctx.of(self.image_pass).pooled))
        return Outputs(rows={"vector": vector, "valid": ctx.batch.valid["image"]})

    def loss(self, outputs: Outputs, ctx: Context) -> LossOut:
        vector, valid = outputs.rows["vector"], outputs.rows["valid"]
        groups = (
            x.reshape(-1, self.group_size, *x.shape[1:])
            for x in (vector, ctx.batch.record_id, valid)
        )
        terms = {k: v.reshape(-1) for k, v in koleo_terms(*groups).items()}
        has_neighbour = terms.pop("has_neighbour")
        metrics = {
            "nn_cosine": masked_mean(terms["cosine"], has_neighbour),
            "effective_rank": effective_rank(jax.lax.stop_gradient(vector), valid),
        }
        return LossOut(loss=masked_mean(terms["loss"], has_neighbour), metrics=metrics)

    def alarms(self) -> tuple[Alarm, ...]:
        remedy = "lower optim.lr, raise the weight of koleo, or look for duplicates in the store"
        alike = Alarm(
            above={"nn_cosine": 0.99},
            after=0.05,
            problem="the pooled vectors of neighbouring images are nearly equal",
            remedy=remedy,
        )
        flat = Alarm(
            below={"effective_rank": 2.0},
            after=0.05,
            problem="the pooled vectors of all images lie on a line (dimensional collapse)",
            remedy=remedy,
        )
        return (alike, flat)


def koleo_terms(
    vector: Float[Array, "g n d"], record_id: Int32[Array, "g n 3"], valid: Bool[Array, "g n"]
) -> dict[str, Array]:
    """Per sample the loss, the cosine to its nearest neighbour, and whether it has one.

    The choice of the neighbour has no gradient, both vectors do.
    """
    cosine = jnp.einsum("gid,gjd->gij", vector, vector, precision="highest")
    same = jnp.all(record_id[:, :, None] == record_id[:, None], axis=-1)
    usable = valid[:, None] & valid[:, :, None] & ~same
    cosine = jax.lax.stop_gradient(jnp.where(usable, cosine, -2.0))
    nearest = jnp.argmax(cosine, axis=-1)
    neighbour = jnp.take_along_axis(vector, nearest[..., None], axis=1)
    distance = jnp.sqrt(jnp.sum(jnp.square(vector - neighbour), axis=-1) + 1e-12)
    return {
        "loss": -jnp.log(jnp.maximum(distance, _LEAST_DISTANCE)),
        "cosine": jnp.max(cosine, axis=-1),
        "has_neighbour": jnp.any(usable, axis=-1),
    }


def effective_rank(vector: Float[Array, "b d"], valid: Bool[Array, " b"]) -> Float[Array, ""]:
    """(Σ λ)² / Σ λ² over the eigenvalues λ of the covariance: the participation ratio."""
    count = jnp.maximum(jnp.sum(valid), 1)
    weight = valid[:, None] / count
    centred = jnp.where(valid[:, None], vector - jnp.sum(weight * vector, axis=0), 0.0)
    covariance = jnp.einsum("bd,be->de", centred, centred, precision="highest") / count
    return jnp.square(jnp.trace(covariance)) / jnp.maximum(jnp.sum(covariance**2), 1e-12)
