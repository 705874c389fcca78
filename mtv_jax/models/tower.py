# SPDX-License-Identifier: Apache-2.0
"""What the image and the text tower share: blocks, final norm, and what is read from them."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from mtv_jax.core.passes import Features, Wants
from mtv_jax.models.blocks import BlockStack, Compute
from mtv_jax.models.sizes import TowerSize


class Tower(nn.Module):
    """A stack of blocks between an embedding and a pooling that the subclass defines."""

    size: TowerSize
    compute: Compute

    def setup(self) -> None:
        self.stack = BlockStack(size=self.size, compute=self.compute)
        self.blocks = self.param("blocks", self.stack.init)
        self.norm = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype)

    @property
    def dtype(self) -> jnp.dtype:
        """Of activations."""
        return jnp.dtype(self.compute.dtype)

    def pool(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b e"]:
        """Final-normed tokens to one float32 vector."""
        raise NotImplementedError

    def features(
        self,
        embedded: Float[Array, "b n d"],
        wants: Wants,
        attn_mask: Bool[Array, "b n n"] | None = None,
    ) -> Features:
        """What is wanted of a tower that reads `embedded`, and nothing else."""
        last = self.size.num_layers - 1
        reads_last = wants.tokens or wants.last_raw or wants.pooled
        wanted = {*wants.taps, last} if reads_last else {*wants.taps}
        outputs = self.stack.outputs(self.blocks, embedded, attn_mask, wanted)
        taps = {index: outputs[index] for index in wants.taps}
        tokens = self.norm(outputs[last]) if wants.tokens or wants.pooled else None
        return Features(
            taps=taps,
            taps_normed={i: self.norm(tap) for i, tap in taps.items()} if wants.tapped_norm else {},
            embedded=embedded if wants.embedded else None,
            tokens=tokens if wants.tokens else None,
            last_raw=outputs[last] if wants.last_raw else None,
            pooled=self.pool(tokens) if wants.pooled else None,
        )


def fold(x: Shaped[Array, "..."], lead: Sequence[int]) -> Shaped[Array, "b ..."]:
    """Merges the leading batch axes `lead` of `x`; the first stays major, so its sharding holds."""
    if x.shape[: len(lead)] != tuple(lead):
        raise ValueError(f"leading axes {x.shape[: len(lead)]} beside inputs of {tuple(lead)}")
    return x.reshape(math.prod(lead), *x.shape[len(lead) :])


def unfold(features: Features, lead: Sequence[int]) -> Features:
    """Undoes `fold` on everything a tower returns."""
    return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), features)
