# SPDX-License-Identifier: Apache-2.0
"""The contract of an evaluator, and what it may read.

An evaluator is one file, used in the training loop and offline alike. Everything it measures goes
through `EvalContext`, which embeds a data set once per checkpoint for all evaluators, on all
processes. Images do not pass through the training canvas: they are resized straight to R × R under
the exported preprocessing.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from input_pipeline.eval_data import EvalData
from input_pipeline.eval_set import EvalSet
from input_pipeline.image_spec import SIGLIP_IMAGES, ImageSpec
from input_pipeline.tokenizer import Tokenizer
from mtv_jax.core.passes import Features, Wants
from mtv_jax.dist.mesh import local_rows, put_batch, replicated
from mtv_jax.models.encoder import Encoder
from mtv_jax.objectives.base import LossOut, Objective, predict_maps

_POOLED = Wants(pooled=True)
_DENSE_BATCH = 32  # a dense head holds its map at full size, many channels wide
HeldoutLosses = Callable[[EvalSet, int], Iterator[Mapping[str, LossOut]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator(abc.ABC):
    """Base of all evaluators.

    Attributes:
        name: its key in the config; prefixes its numbers.
        every: steps between runs in the training loop; 0 runs it at the end only.
        data: what it reads.
    """

    name: str
    every: int = 0
    data: EvalData

    def check(self, columns: Collection[str]) -> None:
        """Called before a run starts: what cannot be measured at its end shall fail now.

        Args:
            columns: those that the objectives read.

        Raises:
            UserError: the data is not there, or not enough of it.
        """
        del columns
        self.data.open()

    @abc.abstractmethod
    def run(self, ctx: "EvalContext") -> dict[str, float]:
        """Numbers by name. A number `x` may come with its chance level as `x/chance`."""

    def unavailable(self, model: "EvalModel") -> str:
        """Why it cannot run on this model ("" when it can), such as a head it does not have."""
        del model
        return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalModel:
    """What is measured: a live state, a checkpoint or an exported folder.

    Attributes:
        encoder: the towers.
        params: {"backbone": …, "heads": {name: …}}, on any sharding; an export has few heads.
        objectives: those it was trained with, by name, as far as they are known.
        tokenizer: for texts; None for a model without a text tower.
        losses: `(data, batches)` → every objective's losses, when the model has all its heads.
        images: what its image tower reads.
        pools: whether its pooled vectors were trained.
    """

    encoder: Encoder
    params: Mapping[str, PyTree]
    objectives: Mapping[str, Objective] = dataclasses.field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    losses: HeldoutLosses | None = None
    images: ImageSpec = SIGLIP_IMAGES
    pools: bool = True

    def lacks_pooled(self) -> str:
        """Why pooled vectors mean nothing; "" when they do."""
        return "" if self.pools else "the model's pooled vectors were not trained"

    def lacks_text(self) -> str:
        """Why texts cannot be embedded; "" when they can."""
        return "" if self.tokenizer else "the model has no text tower"

    def lacks_maps(self, objective: str) -> str:
        """Why an objective's maps cannot be predicted; "" when they can."""
        if objective not in self.objectives:
            return f"the model was not trained with an objective {objective!r}"
        missing = self.objectives[objective].heads().keys() - self.params["heads"].keys()
        return f"the model has no head {min(missing)!r}" if missing else ""


class EvalContext:
    """A model under evaluation on some devices, with memoised features of data sets.

    Args:
        model: what is measured.
        mesh: devices to use.
        batch_size: images at a time over all devices.
        poll: called between batches; tells the watchdog that something happens.
    """

    def __init__(
        self,
        model: EvalModel,
        mesh: Mesh,
        *,
        batch_size: int = 256,
        poll: Callable[[], None] = lambda: None,
    ):
        self.model, self.poll = model, poll
        self.mesh = mesh
        self._batch_size = batch_size
        self._memo: dict[tuple, Any] = {}

    def image_features(self, data: EvalData) -> Float[np.ndarray, "b d"]:
        """Unit pooled vectors of a set's images, float32; embedded once."""

        def embed(params: PyTree, pixels: Array) -> Array:
            return _unit(self.model.encoder.image(params["backbone"], pixels, _POOLED).pooled)

        return self._remember(("pooled", data), lambda: self._all(embed, data))

    def maps(self, data: EvalData, objective: str) -> dict[str, Float[np.ndarray, "b h w *c"]]:
        """An objective's predictions for whole images, `image_size` square; made once."""
        head = self.model.objectives[objective]

        def draw(params: PyTree, pixels: Array) -> dict[str, Array]:
            return predict_maps(self.model.encoder, head, params, pixels)

        return self._remember(
            ("maps", data, objective), lambda: self._all(draw, data, batch_size=_DENSE_BATCH)
        )

    def batches(
        self, data: EvalData, wants: Wants, *, size: int = 0, batch_size: int | None = None
    ) -> Iterator[Features]:
        """Features of a set's images in order, a batch at a time, as numpy; nothing is kept.

        Args:
            data: the images.
            wants: which features.
            size: side in pixels, a multiple of the patch size; 0 is the model's own.
            batch_size: most images at a time.
        """

        def embed(params: PyTree, pixels: Array) -> Features:
            return self.model.encoder.image(params["backbone"], pixels, wants)

        reader = self._reader(data, size or self.model.encoder.image_size)
        compiled = self._remember(("batches", wants), lambda: self._on_images(embed))
        return self.over(compiled, reader, len(data), batch_size=batch_size)

    def text_features(self, texts: Sequence[str]) -> Float[np.ndarray, "b d"]:
        """Unit pooled vectors of texts, float32."""
        tokenizer = self.model.tokenizer
        assert tokenizer is not None
        parts = self.over(self._text_fn, lambda i: tokenizer.encode(texts[i]), len(texts))
        return np.concatenate([*parts])

    def over(
        self,
        fn: Callable,
        read: Callable[[int], np.ndarray],
        count: int,
        *,
        batch_size: int | None = None,
    ) -> Iterator[Any]:
        """`fn(params, rows)` over rows 0 … count-1, a batch at a time; the last one is not padded.

        Args:
            fn: compiled, its results replicated, each with the leading axis of the rows.
            read: one row; asked for those of this process only.
            count: rows.
            batch_size: most rows at a time.
        """
        wanted = min(batch_size or self._batch_size, self._batch_size)
        size = -(-wanted // self.mesh.size) * self.mesh.size
        rows = local_rows(self.mesh, size)
        for start in range(0, count, size):
            self.poll()
            mine = [read(min(start + row, count - 1)) for row in rows]
            batch = put_batch(self.mesh, size, {"x": np.stack(mine)})["x"]
            with jax.set_mesh(self.mesh):
                out = fn(self.model.params, batch)
            yield jax.tree.map(functools.partial(_first, count - start), out)

    def _remember(self, key: tuple, make: Callable[[], Any]) -> Any:
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    def _all(self, fn: Callable, data: EvalData, *, batch_size: int | None = None) -> Any:
        """`fn(params, pixels)` over a whole set."""
        reader = self._reader(data, self.model.encoder.image_size)
        parts = self.over(self._on_images(fn), reader, len(data), batch_size=batch_size)
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def _reader(self, data: EvalData, side: int) -> Callable[[int], np.ndarray]:
        return lambda row: self.model.images.squash(data.image(row), side)

    def _on_images(self, fn: Callable) -> Callable:
        """`fn` compiled for uint8 images."""

        def run(params: PyTree, images: Array) -> Any:
            return fn(params, self.model.images.pixels(images))

        return jax.jit(run, out_shardings=replicated(self.mesh))

    @functools.cached_property
    def _text_fn(self) -> Callable:
        def embed(params: PyTree, ids: Array) -> Array:
            return _unit(self.model.encoder.text(params["backbone"], ids, _POOLED).pooled)

        return jax.jit(embed, out_shardings=replicated(self.mesh))


def _first(count: int, rows: Array) -> np.ndarray:
    return np.asarray(rows)[:count]


def _unit(x: Any) -> Any:
    x = x.astype(jnp.float32)
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-8)
