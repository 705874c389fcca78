# SPDX-License-Identifier: Apache-2.0
"""Everything a run is: restored whole, or not at all.

There is no random key in it: every draw is a function of the seed and the stream position.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int32, Key, PyTree, UInt32

from mtv_jax.dist.rules import Rules, path_string, shardings
from mtv_jax.training.ema import EmaConfig, init_ema
from mtv_jax.training.model import Model
from mtv_jax.training.optim import Optimizer

# Moments, EMA and parameters of one name are sharded alike: rules see "…/backbone/image/…".
DEFAULT_SHARDING: Rules = ((r"(params|ema|opt)/.*", "fsdp"), (r".*", "replicate"))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """The state of a run.

    Attributes:
        step: optimiser steps taken.
        position: stream position of the next batch, two uint32 words.
        params: {"backbone": {"image", "text"}, "heads": {…}}, float32.
        ema: the selected subtrees of `params`.
        opt: optimiser state.
        slots: objectives' state without gradient, by objective.
    """

    step: Int32[Array, ""]
    position: UInt32[Array, "2"]
    params: PyTree
    ema: PyTree
    opt: PyTree
    slots: PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class StateFactory:
    """Makes states, concrete or abstract, from the parts that define them."""

    model: Model
    optimizer: Optimizer
    ema: EmaConfig
    frozen: PyTree

    def init(
        self, key: Key[Array, ""], raw: Mapping[str, Any], loaded: Mapping[str, Array] = {}
    ) -> TrainState:
        """A fresh state.

        Args:
            key: of random initialisation.
            raw: any loader batch (only its shapes matter).
            loaded: parameters by path, instead of random ones.
        """
        params = jax.tree_util.tree_map_with_path(
            lambda path, fresh: loaded.get(path_string(path), fresh),
            self.model.init(key, raw, self.frozen),
        )
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            position=jnp.zeros((2,), jnp.uint32),
            params=params,
            ema=init_ema(self.ema, params),
            opt=self.optimizer.init(params),
            slots=self.model.init_slots(),
        )

    def abstract(
        self, mesh: Mesh, raw: Mapping[str, Any], rules: Rules = DEFAULT_SHARDING
    ) -> TrainState:
        """Shapes with shardings: what a checkpoint is restored onto."""
        shapes = jax.eval_shape(lambda batch: self.init(jax.random.key(0), batch), raw)
        return jax.tree.map(
            lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
            shapes,
            shardings(mesh, rules, shapes),
        )

    def create(
        self,
        seed: int,
        raw: Mapping[str, Any],
        abstract: TrainState,
        loaded: Mapping[str, np.ndarray] = {},
    ) -> TrainState:
        """A fresh state, born sharded: it never exists in one piece on one device.

        `loaded` is donated: its device copy becomes the state's.
        """
        out = jax.tree.map(lambda a: a.sharding, abstract)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), dict(raw))
        make = jax.jit(
            lambda key, arrays: self.init(key, _zeros(shapes), arrays),
            out_shardings=out,
            donate_argnums=1,
        )
        return make(jax.random.key(seed), _put(loaded, out.params))


def _put(arrays: Mapping[str, np.ndarray], shardings: PyTree) -> dict[str, jax.Array]:
    """Arrays that every process holds in full, on the parameters' shardings."""
    by_path = {path_string(p): s for p, s in jax.tree_util.tree_leaves_with_path(shardings)}
    return {
        path: jax.make_array_from_callback(array.shape, by_path[path], array.__getitem__)
        for path, array in arrays.items()
    }


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
