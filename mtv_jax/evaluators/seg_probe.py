# SPDX-License-Identifier: Apache-2.0
"""Linear segmentation: mIoU of a batch-normalised linear map of frozen patch tokens.

Trained on random crops with the cross-entropy of pixels; scored at the images' own sizes, logits
averaged over sliding windows (MTV section 5.2; what the paper leaves open is that of
mmsegmentation's recipes for ADE20K). Intersections and unions are summed over the set; classes
that are neither there nor predicted do not count.

Unlike mmsegmentation the loss is a mean over the pixels that have a class, not over all, and
images are resized with the model's own antialiased kernel.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int64, PyTree, UInt8

from input_pipeline.crops import Cut
from input_pipeline.eval_data import IGNORED, EvalData
from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError
from mtv_jax.core.passes import Features, Wants, wanted
from mtv_jax.dist.mesh import replicated
from mtv_jax.evaluators.base import EvalContext, EvalModel, Evaluator
from mtv_jax.evaluators.base_probe import Probe, Recipe, train_heads
from mtv_jax.evaluators.base_resample import bilinear_weights
from mtv_jax.evaluators.base_windows import Windows

_BANDS = 16  # parts of a crop, whose logits at full size are in memory one after another
_WINDOWS = 32  # at a time
_WANTS = Wants(tokens=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegProbe(Evaluator):
    """mIoU and pixel accuracy for every learning rate; the best mIoU is the headline.

    Attributes:
        train: images with segments of the same classes.
        recipe: how the head is trained; its crops are square, and so are the windows.
        stride: between windows, in pixels; images' short sides are brought to a window's side.
    """

    train: EvalData
    recipe: Recipe
    stride: int = at_least(1)

    def check(self, columns: Collection[str]) -> None:
        super().check(columns)
        self.train.open()
        crops = self.recipe.crops
        if crops.height != crops.width or self.stride > crops.width:
            raise UserError(
                f"evals.{self.name} wants square crops and a stride up to their side, not "
                f"{crops.height} x {crops.width} and {self.stride}"
            )
        if self.data.segment_names() != self.train.segment_names():
            raise UserError(f"{self.data} and {self.train} have segments of different classes")
        for row in range(len(self.data)):
            self.data.segments(row)  # a damaged one shall not end the run after the training

    def unavailable(self, model: EvalModel) -> str:
        return self.recipe.unavailable(model)

    def run(self, ctx: EvalContext) -> dict[str, float]:
        classes = len(self.data.segment_names())
        probe = Probe(head=SegHead(classes=classes), wants=_WANTS, loss=pixel_entropy)

        def sample(row: int, rng: np.random.Generator) -> Cut:
            whole = Cut(self.train.image(row), self.train.segments(row))
            return self.recipe.crops.cut(rng, ctx.model.images, whole, outside=IGNORED)

        heads = train_heads(ctx, probe, self.recipe, sample, len(self.train))
        confusions = np.zeros((len(heads), classes, classes), np.int64)
        for row, found in enumerate(self._predictions(ctx, probe, heads)):
            truth = self.data.segments(row)
            confusions += np.stack([confusion(of_head, truth, classes) for of_head in found])
        return self._numbers(confusions)

    def _numbers(self, confusions: Int64[np.ndarray, "heads c c"]) -> dict[str, float]:
        ious = [mean_iou(confusion) for confusion in confusions]
        right = [float(confusion.trace() / confusion.sum()) for confusion in confusions]
        pixels = confusions[0].sum(axis=1)
        blind = np.zeros_like(confusions[0])  # the most frequent class everywhere
        blind[:, pixels.argmax()] = pixels
        names = [f"lr{lr:g}" for lr in self.recipe.lrs]
        return {
            "miou": max(ious),
            "miou/chance": mean_iou(blind),
            **{f"miou_{name}": iou for name, iou in zip(names, ious, strict=True)},
            **{f"accuracy_{name}": share for name, share in zip(names, right, strict=True)},
            "images": float(len(self.data)),
        }

    def _predictions(
        self, ctx: EvalContext, probe: Probe, heads: list[PyTree]
    ) -> Iterator[list[Int64[np.ndarray, "h w"]]]:
        """Classes of every image's pixels, by each head."""
        shapes = [self.data.image(row).shape[:2] for row in range(len(self.data))]
        side = self.recipe.crops.width
        layouts = [Windows.over(shape, side, self.stride) for shape in shapes]
        owners = np.repeat(np.arange(len(layouts)), [layout.count for layout in layouts])
        first = np.searchsorted(owners, np.arange(len(layouts)))

        @functools.lru_cache(maxsize=2)
        def resized(row: int) -> UInt8[np.ndarray, "h w 3"]:
            return ctx.model.images.resize(self.data.image(row), layouts[row].size)

        def read(index: int) -> UInt8[np.ndarray, "s s 3"]:
            row = int(owners[index])
            return layouts[row].cut(resized(row), index - int(first[row]))

        compiled, row = _logits(ctx, probe, heads), 0
        waiting = np.zeros((0, len(heads)))
        for batch in ctx.over(compiled, read, len(owners), batch_size=_WINDOWS):
            waiting = np.concatenate([waiting, batch]) if len(waiting) else batch
            while row < len(layouts) and len(waiting) >= layouts[row].count:
                mine, waiting = np.split(waiting, [layouts[row].count])
                shape = self.data.segments(row).shape
                yield [layouts[row].classes(mine[:, k], shape) for k in range(len(heads))]
                row += 1


class SegHead(nn.Module):
    """Batch normalisation over all devices, then one linear map."""

    classes: int

    @nn.compact
    def __call__(
        self,
        features: Features,
        grid: tuple[int, int],
        valid: Bool[Array, " b"],
        *,
        training: bool = False,
    ) -> Float[Array, "b h w c"]:
        x = wanted(features.tokens).astype(jnp.float32)
        x = x.reshape(len(x), *grid, -1)
        norm = nn.BatchNorm(use_running_average=not training, momentum=0.9, epsilon=1e-5)
        x = norm(x, mask=jnp.broadcast_to(valid[:, None, None, None], (*x.shape[:3], 1)))
        return nn.Dense(self.classes, kernel_init=nn.initializers.normal(0.01))(x)


def pixel_entropy(
    outputs: Float[Array, "b h w c"],
    targets: UInt8[Array, "b height width"],
    valid: Bool[Array, " b"],
    step: Array,
) -> Float[Array, ""]:
    """Mean cross-entropy of the pixels that have a class.

    Logits are resized bilinearly, a band of rows at a time, and made again backwards.
    """
    del step
    batch, height, width = targets.shape
    targets = jnp.where(valid[:, None, None], targets, IGNORED)
    bands = next(n for n in range(_BANDS, 0, -1) if height % n == 0)
    rows = bilinear_weights(outputs.shape[1], height).reshape(bands, height // bands, -1)
    columns = bilinear_weights(outputs.shape[2], width)
    wide = jnp.einsum("Ww,bhwc->bhWc", columns, outputs, precision="highest")

    @jax.checkpoint
    def add(total: Array, band: Any) -> Any:
        weights, classes = band
        logits = jnp.einsum("Hh,bhWc->bHWc", weights, wide, precision="highest")
        known = classes != IGNORED
        own = jnp.take_along_axis(logits, jnp.where(known, classes, 0)[..., None], axis=-1)
        entropy = jax.nn.logsumexp(logits, axis=-1) - own[..., 0]
        return total + jnp.where(known, entropy, 0.0).sum(), None

    parts = targets.reshape(batch, bands, height // bands, width).swapaxes(0, 1)
    total, _ = jax.lax.scan(add, jnp.float32(0), (jnp.asarray(rows), parts.astype(jnp.int32)))
    return total / jnp.maximum((targets != IGNORED).sum(), 1)


def _logits(ctx: EvalContext, probe: Probe, heads: list[PyTree]) -> Any:
    """`(params, images)` → logits of every head [b, heads, h, w, c], compiled."""

    def run(heads: list[PyTree], params: PyTree, images: Array) -> Array:
        return probe.outputs(ctx, heads, params["backbone"], ctx.model.images.pixels(images))

    compiled = jax.jit(run, out_shardings=replicated(ctx.mesh))
    return functools.partial(compiled, jax.device_put(heads, replicated(ctx.mesh)))


def confusion(
    found: Int64[np.ndarray, "h w"], truth: UInt8[np.ndarray, "h w"], classes: int
) -> Int64[np.ndarray, "c c"]:
    """Pixels by true class (rows) and class found (columns), without the ignored ones."""
    known = truth != IGNORED
    pairs = truth[known].astype(np.int64) * classes + found[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def mean_iou(confusion: Int64[np.ndarray, "c c"]) -> float:
    """Mean over the classes that are there or found of intersection over union."""
    intersections = confusion.diagonal()
    unions = confusion.sum(axis=0) + confusion.sum(axis=1) - intersections
    shown = unions > 0
    return float((intersections[shown] / unions[shown]).mean()) if shown.any() else float("nan")
