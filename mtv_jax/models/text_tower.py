# SPDX-License-Identifier: Apache-2.0
"""SigLIP's text tower: bidirectional, no padding mask, pooled at the last token.

Ids end with EOS and are padded with EOS, so the last slot is the pooling token by construction.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from mtv_jax.core.passes import Features, Wants
from mtv_jax.models.tower import Tower, fold, unfold
from mtv_jax.nn.pos_embed import position_init


def text_positions(length: int, pooling_slot: int) -> tuple[int, ...]:
    """Position embeddings of a text: 0, 1, … and `pooling_slot` for the last id."""
    return (*range(length - 1), pooling_slot)


class TextTower(Tower):
    """Token ids to token features and a pooled vector.

    Attributes:
        vocab_size: number of ids; an id beyond it embeds to NaN.
        length: number of position embeddings, the longest text.
        pooled_dim: width of the pooled vector.
    """

    vocab_size: int
    length: int
    pooled_dim: int

    def setup(self) -> None:
        super().setup()
        width = self.size.embed_dim
        init = position_init(width)
        self.token_embed = self.param("token_embed", init, (self.vocab_size, width))
        self.pos_embed = self.param("pos_embed", init, (1, self.length, width))
        self.head = nn.Dense(self.pooled_dim, dtype=jnp.float32)

    def __call__(
        self, ids: Int32[Array, "*b t"], *, positions: Sequence[int], wants: Wants
    ) -> Features:
        """Runs the tower.

        Args:
            ids: any leading batch axes.
            positions: index of each id's position embedding (`text_positions`).
            wants: what to return.

        Raises:
            ValueError: other than one position per id, positions out of range, or an unknown tap.
        """
        lead, length = ids.shape[:-1], ids.shape[-1]
        rows = np.asarray(positions)
        if rows.shape != (length,) or rows.min() < 0 or rows.max() >= self.length:
            raise ValueError(
                f"{length} ids need as many positions below {self.length}, not {list(positions)}"
            )
        # Looked up in float32: the embedding's gradient is a sum over many equal ids.
        x = jnp.take(self.token_embed, fold(ids, lead), axis=0) + self.pos_embed[:, rows]
        return unfold(self.features(x.astype(self.dtype), wants), lead)

    def pool(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b e"]:
        return self.head(tokens[:, -1].astype(jnp.float32))
