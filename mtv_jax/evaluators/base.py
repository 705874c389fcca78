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
from jaxtyping import Float, PyTree

from input_pipeline import decode
from input_pipeline.eval_set import EvalSet
from input_pipeline.tokenizer import Tokenizer
from mtv_jax.core.passes import Wants
from mtv_jax.dist.mesh import local_rows, put_batch, replicated
from mtv_jax.models.encoder import Encoder
from mtv_jax.objectives.base import LossOut

_POOLED = Wants(pooled=True)
HeldoutLosses = Callable[[EvalSet, int], Iterator[Mapping[str, LossOut]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator(abc.ABC):
    """Base of all evaluators.

    Attributes:
        name: its key in the config; prefixes its numbers.
        every: steps between runs in the training loop; 0 runs it at the end only.
        store: path of the store it reads.
        selection: name of a selection file of that store; "" for all rows.
        sidecars: labels to open beside the store's base shards.
    """

    name: str
    every: int = 0
    store: str
    selection: str = ""
    sidecars: tuple[str, ...] = ()

    @property
    def data(self) -> EvalSet:
        """What it reads."""
        return EvalSet(store=self.store, selection=self.selection, sidecars=tuple(self.sidecars))

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

    def unavailable(self, ctx: "EvalContext") -> str:
        """Why it cannot run on this model ("" when it can), such as a head it does not have."""
        del ctx
        return ""


class EvalContext:
    """A model under evaluation: towers, parameters, and memoised features of data sets.

    Args:
        encoder: the towers.
        params: the backbone's parameters, on any sharding.
        tokenizer: for texts.
        mesh: devices to use.
        batch_size: images at a time over all devices.
        losses: `(data, batches)` → every objective's losses, when the model has its heads.
        poll: called between batches; tells the watchdog that something happens.
    """

    def __init__(
        self,
        encoder: Encoder,
        params: PyTree,
        tokenizer: Tokenizer,
        mesh: Mesh,
        *,
        batch_size: int = 256,
        losses: HeldoutLosses | None = None,
        poll: Callable[[], None] = lambda: None,
    ):
        self.encoder, self.params, self.tokenizer = encoder, params, tokenizer
        self.losses, self.poll = losses, poll
        self._mesh = mesh
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        self._rows = local_rows(mesh, self._batch_size)
        self._image_memo: dict[EvalSet, np.ndarray] = {}

    def image_features(self, data: EvalSet) -> Float[np.ndarray, "b d"]:
        """Unit pooled vectors of a set's images, float32; embedded once."""
        if data not in self._image_memo:
            side = self.encoder.image_size
            self._image_memo[data] = self._embed(
                self._image_fn, lambda i: decode.resize_for_eval(data.image(i), side), len(data)
            )
        return self._image_memo[data]

    def text_features(self, texts: Sequence[str]) -> Float[np.ndarray, "b d"]:
        """Unit pooled vectors of texts, float32."""
        return self._embed(self._text_fn, lambda i: self.tokenizer.encode(texts[i]), len(texts))

    def _embed(self, fn: Callable, read: Callable[[int], np.ndarray], count: int) -> np.ndarray:
        """`fn` over rows 0 … count-1 in padded batches; the padding is cut off again."""
        parts = []
        for start in range(0, count, self._batch_size):
            self.poll()
            mine = [read(min(start + row, count - 1)) for row in self._rows]
            batch = put_batch(self._mesh, self._batch_size, {"x": np.stack(mine)})["x"]
            with jax.set_mesh(self._mesh):
                parts.append(np.asarray(fn(self.params, batch)))
        return np.concatenate(parts)[:count]

    @functools.cached_property
    def _image_fn(self) -> Callable:
        def embed(params: PyTree, pixels: Any) -> Any:
            scaled = pixels.astype(jnp.float32) / 127.5 - 1.0
            return _unit(self.encoder.image(params, scaled, _POOLED).pooled)

        return jax.jit(embed, out_shardings=replicated(self._mesh))

    @functools.cached_property
    def _text_fn(self) -> Callable:
        def embed(params: PyTree, ids: Any) -> Any:
            return _unit(self.encoder.text(params, ids, _POOLED).pooled)

        return jax.jit(embed, out_shardings=replicated(self._mesh))


def _unit(x: Any) -> Any:
    x = x.astype(jnp.float32)
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-8)
