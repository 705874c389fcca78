# SPDX-License-Identifier: Apache-2.0
"""Training of a small head on the features of a frozen encoder, on all devices.

Batch k is positions [k B, (k + 1) B) of a shuffled stream, and what is drawn for a sample depends
on the seed and its position alone: the same head comes out on any devices, up to the order of
sums. Heads that differ in their learning rate only are trained at once, on the same features.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, PyTree

from input_pipeline.crops import Crops, Cut
from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError
from mtv_jax.core.passes import Features, Wants
from mtv_jax.core.progress import Progress
from mtv_jax.core.schedules import Schedule
from mtv_jax.dist.mesh import local_rows, put_batch, replicated
from mtv_jax.evaluators.base import EvalContext, EvalModel

_AHEAD = 2  # batches that are cut while one is computed
_BETAS = (0.9, 0.999)
_MOMENTA = (0.95, 0.85)  # of the one-cycle policy: at both ends, at its turn
_TURN = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How heads are trained: AdamW.

    Attributes:
        crops: what they see.
        steps: updates.
        batch_size: crops in a batch, over all devices.
        lrs: peak learning rates, a head each.
        warmup_steps: the rate rises linearly.
        schedule: how it falls to 0, from the first step on, as mmcv has it.
        momentum: Adam's first: "constant" 0.9, or "one_cycle", 0.95 to 0.85 and back.
        weight_decay: decoupled.
        clip: norm of the gradient; 0 for none.
        seed: of the heads, the order and the crops.
        threads: that read and cut.
    """

    crops: Crops
    steps: int = at_least(1)
    batch_size: int = at_least(1)
    lrs: tuple[float, ...]
    warmup_steps: int = at_least(0, 0)
    schedule: Literal["linear", "cosine"] = "linear"
    momentum: Literal["constant", "one_cycle"] = "constant"
    weight_decay: float = at_least(0.0, 0.01)
    clip: float = at_least(0.0, 0.0)
    seed: int = at_least(0, 0)
    threads: int = at_least(1, 8)

    def unavailable(self, model: EvalModel) -> str:
        """Why a model cannot read the crops; "" when it can."""
        patch, crops = model.encoder.patch_size, self.crops
        if crops.height % patch or crops.width % patch:
            return f"patches of {patch} do not divide crops of {crops.height} x {crops.width}"
        return ""

    def optimizer(self) -> optax.GradientTransformation:
        """All but the learning rate."""
        moments = functools.partial(optax.scale_by_adam, b2=_BETAS[1])
        if self.momentum == "one_cycle":
            adam = optax.inject_hyperparams(moments)(b1=one_cycle_momentum(self.steps))
        else:
            adam = moments(b1=_BETAS[0])
        clip = optax.clip_by_global_norm(self.clip) if self.clip else optax.identity()
        return optax.chain(clip, adam, optax.add_decayed_weights(self.weight_decay))

    def rate(self) -> Schedule:
        """By step, for a peak of 1."""

        def rate(step: Any) -> Float[Array, ""]:
            rise = jnp.minimum((step + 1) / max(self.warmup_steps, 1), 1.0)
            progress = step / self.steps
            cosine = 0.5 * (1 + jnp.cos(math.pi * progress))
            return rise * (cosine if self.schedule == "cosine" else 1 - progress)

        return rate


def one_cycle_momentum(steps: int) -> Schedule:
    """Half a cosine down to the turn, half a cosine back."""
    high, low = _MOMENTA
    turn, last = max(_TURN * steps - 1, 1), max(steps - 1, 2)

    def momentum(step: Any) -> Float[Array, ""]:
        down = jnp.clip(step / turn, 0, 1)
        up = jnp.clip((step - turn) / max(last - turn, 1), 0, 1)
        return low + (high - low) * 0.5 * (1 + jnp.cos(math.pi * (down - up)))

    return momentum


# (outputs [b, …], targets [b, h, w], valid [b], step) → loss; rows that are not valid do not count.
Loss = Callable[[Any, Array, Bool[Array, " b"], Array], Float[Array, ""]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """A kind of head: what it reads of an image, and when it is right.

    Attributes:
        head: called with features, their grid and which rows are valid.
        wants: the features.
        loss: of one batch.
        group: consecutive positions that the loss takes together.
    """

    head: nn.Module
    wants: Wants
    loss: Loss
    group: int = 1

    def outputs(
        self,
        ctx: EvalContext,
        heads: list[PyTree],
        backbone: PyTree,
        pixels: Float[Array, "b h w 3"],
    ) -> Array:
        """Of every trained head, [b, heads, …]."""
        features = ctx.model.encoder.image(backbone, pixels, self.wants)
        grid, valid = grid_of(ctx, pixels.shape), jnp.ones(len(pixels), bool)
        apply: Callable[..., Any] = self.head.apply
        return jnp.stack([apply(one, features, grid, valid) for one in heads], axis=1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Trained:
    """Every leaf has a leading axis of heads."""

    variables: PyTree
    opt: PyTree


def train_heads(
    ctx: EvalContext,
    probe: Probe,
    recipe: Recipe,
    sample: Callable[[int, np.random.Generator], Cut],
    count: int,
) -> list[PyTree]:
    """Variables of every head, in the order of the learning rates.

    Args:
        ctx: the encoder and the devices.
        probe: what is trained.
        recipe: how.
        sample: a crop of image number i of `count`.
        count: images.

    Raises:
        UserError: a batch that groups do not divide.
    """
    if recipe.batch_size % probe.group:
        raise UserError(f"batch_size {recipe.batch_size} should be a multiple of {probe.group}")
    multiple = math.lcm(ctx.mesh.size, probe.group)
    padded = -(-recipe.batch_size // multiple) * multiple
    trained, step_fn = _initial(ctx, probe, recipe), _step(ctx, probe, recipe)
    progress, losses = Progress("probe", recipe.steps, unit="steps"), np.zeros(0)
    for step, local in enumerate(_batches(ctx, recipe, sample, count, padded)):
        ctx.poll()
        batch = put_batch(ctx.mesh, padded, local)
        with jax.set_mesh(ctx.mesh):
            trained, losses = step_fn(trained, ctx.model.params["backbone"], batch, np.int32(step))
        jax.block_until_ready(losses)
        if jax.process_index() == 0:
            progress.show(step + 1)
    if not np.isfinite(losses := np.asarray(losses)).all():
        raise UserError(f"a probe's losses are {losses.tolist()} at rates {recipe.lrs}; lower them")
    host = jax.device_get(trained.variables)
    return [jax.tree.map(lambda x, i=i: x[i], host) for i in range(len(recipe.lrs))]


def _batches(
    ctx: EvalContext,
    recipe: Recipe,
    sample: Callable[[int, np.random.Generator], Cut],
    count: int,
    padded: int,
) -> Iterator[dict[str, np.ndarray]]:
    """This process's rows of every batch; rows beyond `batch_size` are fillers."""
    rows = local_rows(ctx.mesh, padded)
    valid = rows < recipe.batch_size

    def cut(position: int) -> Cut:
        rng = _generator(recipe.seed, position)
        return sample(int(_epoch(recipe.seed, position // count, count)[position % count]), rng)

    with concurrent.futures.ThreadPoolExecutor(recipe.threads) as pool:
        ahead: collections.deque[list[concurrent.futures.Future[Cut]]] = collections.deque()
        for step in range(recipe.steps + _AHEAD):
            if step < recipe.steps:
                first = step * recipe.batch_size
                wanted = first + np.minimum(rows, recipe.batch_size - 1)
                ahead.append([pool.submit(cut, int(position)) for position in wanted])
            if step >= _AHEAD:
                cuts = [future.result() for future in ahead.popleft()]
                images, targets = (np.stack(parts) for parts in zip(*cuts, strict=True))
                yield {"images": images, "targets": targets, "valid": valid}


@functools.lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, count: int) -> np.ndarray:
    """The images in an epoch's order."""
    return _generator(seed, 2**63 + epoch).permutation(count)  # no position comes that far


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.asarray([seed, stream], np.uint64)))


def _initial(ctx: EvalContext, probe: Probe, recipe: Recipe) -> _Trained:
    """The same head for every learning rate."""
    pixels = jax.ShapeDtypeStruct((1, recipe.crops.height, recipe.crops.width, 3), jnp.float32)
    image = functools.partial(ctx.model.encoder.image, wants=probe.wants)
    features = jax.eval_shape(image, ctx.model.params["backbone"], pixels)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), features)
    key, grid = jax.random.key(recipe.seed), grid_of(ctx, pixels.shape)
    variables = probe.head.init(key, zeros, grid, jnp.ones(1, bool), training=True)
    opt = recipe.optimizer().init(variables["params"])
    heads = len(recipe.lrs)
    host = jax.tree.map(
        lambda x: np.repeat(np.asarray(x)[None], heads, axis=0), _Trained(variables, opt)
    )
    return jax.device_put(host, replicated(ctx.mesh))


def _step(ctx: EvalContext, probe: Probe, recipe: Recipe) -> Any:
    """`(heads, backbone, batch, step)` → heads and their losses, compiled."""
    optimizer, rate = recipe.optimizer(), recipe.rate()
    peaks = jnp.asarray(recipe.lrs, jnp.float32)

    def update(head: _Trained, peak: Array, features: Features, batch: Any, step: Array) -> Any:
        def loss(params: PyTree) -> Any:
            outputs, state = probe.head.apply(
                {**head.variables, "params": params},
                features,
                grid_of(ctx, batch["images"].shape),
                batch["valid"],
                training=True,
                mutable=[name for name in head.variables if name != "params"],
            )
            return probe.loss(outputs, batch["targets"], batch["valid"], step), state

        params = head.variables["params"]
        (value, state), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt = optimizer.update(grads, head.opt, params)
        params = jax.tree.map(lambda p, u: p - peak * rate(step) * u, params, updates)
        return _Trained({**state, "params": params}, opt), value

    def run(heads: _Trained, backbone: PyTree, batch: Any, step: Array) -> Any:
        pixels = ctx.model.images.pixels(batch["images"])
        features = ctx.model.encoder.image(backbone, pixels, probe.wants)
        # One head after another: their logits are the most that is in memory.
        return jax.lax.map(
            lambda pair: update(pair[0], pair[1], features, batch, step), (heads, peaks)
        )

    return jax.jit(run, donate_argnums=0, out_shardings=replicated(ctx.mesh))


def grid_of(ctx: EvalContext, shape: tuple[int, ...]) -> tuple[int, int]:
    """Patches of images [b, h, w, 3]."""
    side = ctx.model.encoder.patch_size
    return shape[1] // side, shape[2] // side
