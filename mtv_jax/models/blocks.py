# SPDX-License-Identifier: Apache-2.0
"""The pre-norm transformer block, and the stack of blocks that both towers run.

Parameters are stacked: every leaf of the stack carries a leading axis of layers, whether the stack
is scanned or unrolled and whatever is read from it.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from mtv_jax.dist.mesh import shard_batch
from mtv_jax.models.sizes import TowerSize
from mtv_jax.nn.attention import Attention, AttnImpl
from mtv_jax.nn.mlp import Mlp

Remat = Literal["none", "full", "dots"]

# What the backward pass finds stored: with "dots" the results of the weight matmuls, but not the
# attention logits; with "full" only what enters a block.
_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
    """How a tower is computed; none of it changes its parameters.

    Attributes:
        dtype: of activations and matmuls; norm statistics, softmax and pooling stay float32.
        remat: what the backward pass recomputes: nothing, blocks, or all but their matmuls.
        scan_unroll: blocks in the body of the compiled loop over layers; fewer compile faster.
        attn_impl: attention kernel.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Remat = "none"
    scan_unroll: int = 1
    attn_impl: AttnImpl = "auto"


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    size: TowerSize
    compute: Compute

    def setup(self) -> None:
        dtype = jnp.dtype(self.compute.dtype)
        self.norm1 = nn.LayerNorm(epsilon=1e-6, dtype=dtype)
        self.attn = Attention(self.size.num_heads, dtype=dtype, impl=self.compute.attn_impl)
        self.norm2 = nn.LayerNorm(epsilon=1e-6, dtype=dtype)
        self.mlp = Mlp(self.size.mlp_dim, dtype=dtype)

    def __call__(
        self, x: Float[Array, "b n d"], attn_mask: Bool[Array, "b n n"] | None
    ) -> Float[Array, "b n d"]:
        x = shard_batch(x)
        normed = self.norm1(x)
        x = x + self.attn(normed, normed, attn_mask)
        return x + self.mlp(self.norm2(x))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockStack:
    """`size.num_layers` blocks as functions of their stacked parameters."""

    size: TowerSize
    compute: Compute

    @property
    def _block(self) -> Block:
        # Without parent: a tower that builds the stack must not adopt it as a submodule.
        return Block(self.size, self.compute, parent=None)

    def init(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Parameters of all layers, each leaf [l, ...]."""
        x = jnp.zeros((1, 1, self.size.embed_dim))

        def one(layer_key: Key[Array, ""]) -> dict[str, Any]:
            return self._block.init(layer_key, x, None)["params"]

        return jax.vmap(one)(jax.random.split(key, self.size.num_layers))

    def outputs(
        self,
        params: Mapping[str, Any],
        x: Float[Array, "b n d"],
        attn_mask: Bool[Array, "b n n"] | None,
        wanted: Collection[int],
    ) -> dict[int, Float[Array, "b n d"]]:
        """Block index → output, for the wanted blocks only; blocks after the last are not run.

        Raises:
            ValueError: a wanted block that the stack does not have.
        """
        if not wanted:
            return {}
        *early, last = sorted(wanted)
        if min(wanted) < 0 or last >= self.size.num_layers:
            raise ValueError(f"taps {sorted(wanted)} of a tower of {self.size.num_layers} blocks")
        if last + 1 < self.size.num_layers:
            params = jax.tree.map(lambda leaf: leaf[: last + 1], params)
        apply = self._checkpointed(attn_mask)
        # The loop carries one slot per early tap and a last one that untapped blocks overwrite:
        # stacking the outputs of all blocks would hold each of them twice in the backward pass.
        slots = np.array([early.index(i) if i in early else len(early) for i in range(last + 1)])
        store = jnp.zeros((len(early) + 1, *x.shape), x.dtype) if early else None

        def step(carry: Any, inputs: Any) -> tuple[Any, None]:
            (x, store), (layer, slot) = carry, inputs
            x = apply(layer, x)
            if store is not None:
                store = jax.lax.dynamic_update_index_in_dim(store, x, slot, axis=0)
            return (x, store), None

        (x, store), _ = jax.lax.scan(
            step, (x, store), (params, slots), unroll=self.compute.scan_unroll
        )
        return {**{tap: store[slot] for slot, tap in enumerate(early)}, last: x}

    def _checkpointed(
        self, attn_mask: Bool[Array, "b n n"] | None
    ) -> Callable[[Mapping[str, Any], Float[Array, "b n d"]], Float[Array, "b n d"]]:
        """One block under the remat policy."""

        def apply(layer: Mapping[str, Any], x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
            return self._block.apply({"params": layer}, x, attn_mask)

        if self.compute.remat == "none":
            return apply
        # A loop already keeps XLA from merging the recomputation with the forward pass.
        unrolled = self.compute.scan_unroll >= self.size.num_layers
        return jax.checkpoint(apply, prevent_cse=unrolled, policy=_POLICIES[self.compute.remat])
