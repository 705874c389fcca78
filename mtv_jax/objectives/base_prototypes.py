# SPDX-License-Identifier: Apache-2.0
"""What the two prototype objectives share: head, temperatures, centre, signs of collapse.

    q = softmax((p̂ - c) / τ_t),   L = -mean Σ_k q_k log_softmax(p / τ_s)_k
    c ← m c + (1 - m) mean p̂, after q was made with the old one

p are the scores of a student on K prototypes, p̂ those of the EMA teacher (of tower and head), c the
centre (DINO, arXiv 2104.14294; iBOT, arXiv 2111.07832). Deviations from MTV as printed: the
cross-entropy is minimised (printed: minus the divergence, which would be maximised), sums over
images, crops and patches are means, and the centre is that of the teacher's scores (printed: of the
student's).
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import IMAGE, Field
from mtv_jax.core.masking import masked_mean, zero_invalid
from mtv_jax.core.passes import Pass
from mtv_jax.core.schedules import as_schedule
from mtv_jax.nn.prototypes import Projected, ProtoHead, cross_entropy
from mtv_jax.objectives.base import Alarm, Context, LossOut, Objective, Outputs

_COLLAPSE = "lower optim.lr, or that of the heads by optim.lr_rules, or raise ema.momentum"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """Features that are compared: j comparisons per sample, m students in each."""

    students: Float[Array, "b j m d"]
    teachers: Float[Array, "b j d"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrototypeObjective(Objective):
    """Cross-entropy of students' prototype scores against the teacher's.

    Attributes:
        image_view: the view that the teacher sees.
        prototypes: K.
        hidden: width of the head's hidden layers.
        bottleneck: width of the head's unit vectors.
        learn_gains: whether prototypes have gains of their own.
        student_temp: τ_s.
        teacher_temps: τ_t at the start, and from the end of the warm-up on.
        temp_warmup: share of the run over which τ_t rises.
        centre_momentum: m.
        block_mib: MiB of float32 scores in a block; a device holds about three times as much.
        dtype: of the head's layers and of what the scores multiply.
    """

    image_view: str = "global_crop"
    prototypes: int = at_least(2, 32_768)
    hidden: int = at_least(1, 2048)
    bottleneck: int = at_least(1, 256)
    learn_gains: bool = True
    student_temp: float = at_least(1e-3, 0.1)
    teacher_temps: tuple[float, float] = (0.04, 0.07)
    temp_warmup: float = at_least(0.0, 0.3)
    centre_momentum: float = 0.9
    block_mib: int = at_least(1, 64)
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if min(self.teacher_temps) <= 0 or not 0 <= self.centre_momentum < 1:
            raise UserError(
                f"objectives.{self.name}: teacher_temps {self.teacher_temps} should be above 0 and "
                f"centre_momentum {self.centre_momentum} in [0, 1)"
            )

    @property
    def teacher(self) -> Pass:
        return Pass(tower="image", view=self.image_view, who="ema")

    def fields(self) -> tuple[Field, ...]:
        return (IMAGE,)

    @property
    def _head(self) -> str:
        return f"{self.name}_head"

    def heads(self) -> Mapping[str, nn.Module]:
        head = ProtoHead(
            self.prototypes,
            hidden=self.hidden,
            bottleneck=self.bottleneck,
            learn_gains=self.learn_gains,
            dtype=jnp.dtype(self.dtype),
        )
        return {self._head: head}

    def slots(self) -> PyTree:
        return {"centre": jnp.zeros((self.prototypes,))}

    @abc.abstractmethod
    def pairs(self, ctx: Context) -> Pairs:
        """What is compared with what."""

    def project(self, ctx: Context) -> Outputs:
        pairs, valid = self.pairs(ctx), ctx.batch.valid["image"]
        student = ctx.student[self._head](pairs.students)
        teacher = self._taught_by(ctx)(pairs.teachers)
        samples, comparisons = teacher.vectors.shape[:2]
        terms = cross_entropy(
            _merge_rows(student),
            _merge_rows(teacher),
            ctx.slots["centre"],
            student_temp=self.student_temp,
            teacher_temp=self._teacher_temp(ctx),
            block_bytes=self.block_mib * 2**20,
            dtype=jnp.dtype(self.dtype),
        )
        rows = {k: v.reshape(samples, comparisons).mean(axis=-1) for k, v in terms.items()}
        counted = zero_invalid(teacher.vectors, valid).reshape(-1, self.bottleneck)
        total = teacher.prototypes.sum_of_scores(counted, jnp.dtype(self.dtype))
        mean = jax.lax.stop_gradient(total) / comparisons
        return Outputs(rows={**rows, "valid": valid}, sums={"teacher_scores": mean})

    def loss(self, outputs: Outputs, ctx: Context) -> LossOut:
        rows, valid = outputs.rows, outputs.rows["valid"]
        loss, entropy = masked_mean(rows["loss"], valid), masked_mean(rows["entropy"], valid)
        count, old, m = jnp.sum(valid), ctx.slots["centre"], self.centre_momentum
        moved = m * old + (1 - m) * outputs.sums["teacher_scores"] / jnp.maximum(count, 1)
        metrics = {
            "teacher_entropy": entropy,
            "entropy_share": entropy / math.log(self.prototypes),
            "kl": loss - entropy,
            "teacher_temp": self._teacher_temp(ctx),
        }
        slots = {"centre": jnp.where(count > 0, moved, old)}
        return LossOut(loss=loss, metrics=metrics, slots=slots)

    def alarms(self) -> tuple[Alarm, ...]:
        uniform = Alarm(
            above={"entropy_share": 0.98},
            below={"kl": 0.1},
            after=0.05,
            problem="the teacher's targets are uniform and the student has matched them: nothing "
            "is left to learn (uniform collapse)",
            remedy=f"lower teacher_temps; {_COLLAPSE}",
        )
        one_hot = Alarm(
            below={"entropy_share": 0.1},
            after=0.05,
            problem="the teacher puts all images on a few prototypes (one-hot collapse)",
            remedy=f"raise teacher_temps, lower centre_momentum; {_COLLAPSE}",
        )
        return (uniform, one_hot)

    def _taught_by(self, ctx: Context) -> Callable[..., Projected]:
        """The teacher's head.

        Raises:
            UserError: there is none.
        """
        if self._head not in ctx.ema:
            raise UserError(
                f"objective {self.name} has no teacher for its head: ema.rules should select "
                f"heads/{self._head}/.* (configs/common.py: teacher)"
            )
        return ctx.ema[self._head]

    def _teacher_temp(self, ctx: Context) -> Float[Array, ""]:
        first, last = self.teacher_temps
        if not self.temp_warmup:
            return as_schedule(last)(ctx.progress)
        return as_schedule({0.0: first, self.temp_warmup: last})(ctx.progress)


def _merge_rows(projected: Projected) -> Projected:
    """[b, j, …] vectors as [b j, …]."""
    vectors = projected.vectors
    return projected._replace(vectors=vectors.reshape(-1, *vectors.shape[2:]))
