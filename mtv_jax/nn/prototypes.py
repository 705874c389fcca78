# SPDX-License-Identifier: Apache-2.0
"""Prototype scores, and the cross-entropy of a student's against a teacher's.

A head maps features to unit vectors; the score of prototype k is g_k ⟨u_k / ‖u_k‖, x⟩. A head
returns the vectors and the prototypes, not the scores: with tens of thousands of prototypes those
of all masked patches would fill a device. `cross_entropy` makes them block by block.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mtv_jax.dist.collectives import pairwise_rows

# DINOv2 cuts at 2, a hundred standard deviations away.
_INIT = nn.initializers.normal(0.02)


class Prototypes(NamedTuple):
    """Score k of a unit vector x is scale_k ⟨directions_k, x⟩.

    Both are float32, so that their gradients are added up in float32 over blocks and devices.

    Attributes:
        directions: of any length.
        scale: gains over the lengths of the directions.
    """

    directions: Float[Array, "k e"]
    scale: Float[Array, " k"]

    def scores(self, vectors: Float[Array, "*b e"], dtype: DTypeLike) -> Float[Array, "*b k"]:
        """Scores in float32, products of factors in `dtype`."""
        products = jnp.einsum(
            "...e,ke->...k",
            vectors.astype(dtype),
            self.directions.astype(dtype),
            preferred_element_type=jnp.float32,
        )
        return products * self.scale

    def sum_of_scores(self, vectors: Float[Array, "r e"], dtype: DTypeLike) -> Float[Array, " k"]:
        """What `scores` gives, summed over rows: scores are linear, so the vectors are summed."""
        total = jnp.sum(vectors.astype(dtype).astype(jnp.float32), axis=0)
        directions = self.directions.astype(dtype).astype(jnp.float32)
        return jnp.einsum("e,ke->k", total, directions, precision="highest") * self.scale


class Projected(NamedTuple):
    """Unit vectors, float32, and the prototypes they are to be scored on."""

    vectors: Float[Array, "*b e"]
    prototypes: Prototypes


class ProtoHead(nn.Module):
    """Three layers, an L2 norm and weight-normalised prototypes (MTV appendix A.2, DINOv2).

    GELU is the exact one, as in DINOv2; the norms are float32.

    Attributes:
        prototypes: K.
        hidden: width of the two hidden layers.
        bottleneck: width of the vectors.
        learn_gains: whether the prototypes' gains g are parameters; else they are 1.
        dtype: of the layers.
    """

    prototypes: int
    hidden: int = 2048
    bottleneck: int = 256
    learn_gains: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Projected:
        for layer, width in enumerate((self.hidden, self.hidden, self.bottleneck)):
            x = nn.Dense(width, kernel_init=_INIT, dtype=self.dtype, name=f"fc{layer + 1}")(x)
            x = nn.gelu(x, approximate=False) if layer < 2 else x
        shape = (self.prototypes, self.bottleneck)
        directions = self.param("directions", _uniform(self.bottleneck**-0.5), shape)
        scale = 1 / jnp.linalg.norm(directions, axis=-1)
        if self.learn_gains:
            scale *= self.param("gains", nn.initializers.ones, (self.prototypes,))
        prototypes = Prototypes(directions=directions, scale=scale)
        return Projected(vectors=_unit(x), prototypes=prototypes)


def cross_entropy(
    student: Projected,
    teacher: Projected,
    centre: Float[Array, " k"],
    *,
    student_temp: float,
    teacher_temp: Float[Array, ""],
    block_bytes: int,
    dtype: DTypeLike = jnp.float32,
) -> dict[str, Float[Array, " r"]]:
    """Cross-entropy of students against a teacher, one row of prototypes at a time.

    q = softmax((ŝ - c) / τ_t), L = -Σ_k q_k log_softmax(s / τ_s)_k. Forward and backward hold the
    scores of one block of rows; the backward pass makes them again.

    Args:
        student: vectors [r, m, e], m students of every teacher.
        teacher: vectors [r, e]; no gradient.
        centre: subtracted from the teacher's scores; no gradient.
        student_temp: τ_s.
        teacher_temp: τ_t.
        block_bytes: of the float32 scores of one block; about three times as much is held.
        dtype: of the factors of a score.

    Returns:
        By row "loss", the mean over its students, and "entropy", the teacher's.
    """
    students = student.vectors.shape[1]
    chunk = max(1, block_bytes // (4 * len(student.prototypes.scale) * students))
    fixed = {
        "teacher": teacher.prototypes,
        "centre": centre,
        "teacher_temp": teacher_temp,
    }
    shared = {"student": student.prototypes, **jax.lax.stop_gradient(fixed)}

    def term(rows: dict, _: dict, shared: dict) -> dict[str, Float[Array, " c"]]:
        target = shared["teacher"].scores(rows["teacher"], dtype) - shared["centre"]
        log_target = jax.nn.log_softmax(target / shared["teacher_temp"])
        target = jnp.exp(log_target)
        scores = shared["student"].scores(rows["student"], dtype) / student_temp
        expected = jnp.einsum("ck,cmk->cm", target, scores, precision="highest")
        losses = jax.nn.logsumexp(scores, axis=-1) - expected
        return {"loss": losses.mean(axis=-1), "entropy": -jnp.sum(target * log_target, axis=-1)}

    rows = {"student": student.vectors, "teacher": jax.lax.stop_gradient(teacher.vectors)}
    return pairwise_rows(term, rows, {}, shared, chunk=chunk)


def _uniform(bound: float) -> nn.initializers.Initializer:
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


def _unit(x: Float[Array, "*b e"]) -> Float[Array, "*b e"]:
    """x / max(‖x‖, 1e-12) in float32, with a finite gradient at zero."""
    x = x.astype(jnp.float32)
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.maximum(squared, 1e-24))
