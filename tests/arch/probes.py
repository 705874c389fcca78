# SPDX-License-Identifier: Apache-2.0
"""Two small objectives that need everything the contract offers, each like a planned one.

`MixtureProbe` is like M3I: two views, a mixture of two images by a patch mask inside groups, dense
EMA targets, relative geometry of the windows. `DistillProbe` is like SAK: taps of all blocks, a
frozen expert, heads shared with a sibling, running statistics in slots.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree, Shaped

from mtv_jax.core.fields import IMAGE, Field
from mtv_jax.core.masking import masked_mean
from mtv_jax.core.passes import Features, Pass, Plan, Wants
from mtv_jax.core.rng import group_keys
from mtv_jax.objectives.base import Context, LossOut, Objective, Outputs
from mtv_jax.views.batch import Batch


def exact_half_mask(keys: Key[Array, " b"], count: int) -> Array:
    """[b, count] bool with exactly half of the patches marked."""
    draws = jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys)
    return jnp.argsort(jnp.argsort(draws, axis=-1), axis=-1) < count // 2


def to_patches(x: Float[Array, "b n"], side: int) -> Float[Array, "b h w 1"]:
    """A patch map as a pixel mask."""
    grid = round(x.shape[1] ** 0.5)
    square = x.reshape(-1, grid, 1, grid, 1)
    patch = side // grid
    return jnp.broadcast_to(square, (x.shape[0], grid, patch, grid, patch)).reshape(
        -1, side, side, 1
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureProbe(Objective):
    """Predicts the teacher's dense features of a clean view from a mixture of two images."""

    group_size: int = 2

    @property
    def student(self) -> Pass:
        return Pass(tower="image", view=f"{self.name}/mixed")

    @property
    def teacher(self) -> Pass:
        return Pass(tower="image", view="global_crop", who="ema")

    def fields(self) -> tuple[Field, ...]:
        return (IMAGE,)

    def group(self) -> int:
        return self.group_size

    def derive(self, batch: Batch, keys: Key[Array, " b"]) -> dict[str, Shaped[Array, "b ..."]]:
        mask = exact_half_mask(keys, batch.grid("global_crop") ** 2)
        shifts = jax.vmap(lambda key: jax.random.randint(key, (), 1, self.group_size))(
            group_keys(keys, self.group_size)
        )
        other = self._rolled(batch.inputs["second"], shifts)
        pixels = to_patches(mask.astype(jnp.float32), other.shape[1])
        mixed = pixels * batch.inputs["global_crop"] + (1 - pixels) * other
        a, b = batch.windows["global_crop"], batch.windows["second"]
        geometry = jnp.concatenate([(a.start - b.start) / b.extent, a.extent / b.extent], -1)
        valid = batch.valid["image"] & self._rolled(batch.valid["image"], shifts)
        return {
            f"{self.name}/mixed": mixed,
            f"{self.name}/mask": mask,
            f"{self.name}/geometry": geometry,
            f"{self.name}/valid": valid,
        }

    def passes(self) -> Plan:
        return {self.student: Wants(tokens=True), self.teacher: Wants(tokens=True)}

    def heads(self) -> Mapping[str, nn.Module]:
        return {"mixture_decoder": nn.Dense(8), "mixture_geometry": nn.Dense(8)}

    def project(self, ctx: Context) -> Outputs:
        inputs = ctx.batch.inputs
        place = ctx.student["mixture_geometry"](inputs[f"{self.name}/geometry"])
        prediction = ctx.student["mixture_decoder"](ctx.of(self.student).tokens) + place[:, None]
        target = ctx.ema["mixture_decoder"](ctx.of(self.teacher).tokens)
        error = jnp.square(prediction - target).mean(axis=-1)
        masked = (error * inputs[f"{self.name}/mask"]).sum(-1) / inputs[f"{self.name}/mask"].sum(-1)
        return Outputs(rows={"error": masked, "valid": inputs[f"{self.name}/valid"]})

    def loss(self, outputs: Outputs, ctx: Context) -> LossOut:
        del ctx
        return LossOut(loss=masked_mean(outputs.rows["error"], outputs.rows["valid"]))

    def _rolled(self, x: Shaped[Array, "b ..."], shifts: Array) -> Shaped[Array, "b ..."]:
        groups = x.reshape(-1, self.group_size, *x.shape[1:])
        rolled = jax.vmap(lambda part, shift: jnp.roll(part, shift, axis=0))(groups, shifts)
        return rolled.reshape(x.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillProbe(Objective):
    """Matches adapted taps of every block with a frozen expert's; centres targets by a slot."""

    layers: tuple[int, ...] = (0, 1, 2, 3)
    head: str = "shared_adapter"

    @property
    def student(self) -> Pass:
        return Pass(tower="image", view="global_crop")

    @property
    def expert(self) -> Pass:
        return Pass(tower="image", view="global_crop", who="frozen/probe")

    def fields(self) -> tuple[Field, ...]:
        return (IMAGE,)

    def passes(self) -> Plan:
        return {
            self.student: Wants(taps=self.layers, embedded=True),
            self.expert: Wants(taps=(0,)),
        }

    def heads(self) -> Mapping[str, nn.Module]:
        return {self.head: nn.Dense(6)}

    def slots(self) -> PyTree:
        return {"centre": jnp.zeros((6,))}

    def project(self, ctx: Context) -> Outputs:
        features = ctx.of(self.student)
        mixed = sum(features.taps[i] for i in self.layers) + features.embedded
        target = ctx.of(self.expert).taps[0]
        adapted = ctx.student[self.head](mixed)
        error = jnp.square(adapted - target[..., :6] + ctx.slots["centre"]).mean(axis=(-2, -1))
        valid = ctx.batch.valid["image"]
        total = jnp.where(valid[:, None], target[..., :6].mean(axis=1), 0.0).sum(axis=0)
        return Outputs(rows={"error": error, "valid": valid}, sums={"target": total})

    def loss(self, outputs: Outputs, ctx: Context) -> LossOut:
        valid = outputs.rows["valid"]
        mean = outputs.sums["target"] / jnp.maximum(valid.sum(), 1)
        moved = 0.9 * ctx.slots["centre"] + 0.1 * jax.lax.stop_gradient(mean)
        centre = jnp.where(valid.any(), moved, ctx.slots["centre"])
        return LossOut(loss=masked_mean(outputs.rows["error"], valid), slots={"centre": centre})


def probe_expert(params: PyTree, pixels: Float[Array, "b h w 3"], wants: Wants) -> Features:
    """A frozen tower: mean colour of 8 × 8 patches times a matrix."""
    del wants
    b, h, w, _ = pixels.shape
    patches = pixels.reshape(b, h // 8, 8, w // 8, 8, 3).mean(axis=(2, 4)).reshape(b, -1, 3)
    return Features(taps={0: patches @ params["kernel"]})
