# SPDX-License-Identifier: Apache-2.0
"""The backbone: both towers behind pure functions of plain nested dicts.

Nothing outside this package sees Flax. Parameters are `{"image": …, "text": …}`, float32, with
blocks stacked along a leading axis of layers.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Key

from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError
from mtv_jax.core.passes import Features, Wants
from mtv_jax.models.blocks import Compute, Remat
from mtv_jax.models.sizes import TowerSize, tower_size
from mtv_jax.models.text_tower import TextTower, text_positions
from mtv_jax.models.vit import ImageTower, MaskMode, Pooling
from mtv_jax.nn.attention import AttnImpl

Params = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
    """A SigLIP pair of towers (arXiv 2303.15343), built from plain config values.

    Attributes:
        image_size: side in pixels at which position embeddings are learned.
        patch_size: side of a patch in pixels.
        image_tower: size of the image tower, a name of `models/sizes.py`.
        text_tower: size of the text tower; its pooled vector has the image tower's width.
        vocab_size: token ids.
        text_length: longest text, in ids.
        pooling: of the image tower, see `ImageTower`.
        has_mask_token: whether masked patches can be replaced.
        has_text_tower: without one there are no parameters under "text".
        dtype: compute dtype.
        remat: what the backward pass recomputes, see `Compute`.
        scan_unroll: blocks per iteration of the loop over layers.
        attn_impl: attention kernel.

    Raises:
        UserError: an unknown size, or sides that the patch size does not divide.
    """

    image_size: int = at_least(1, 224)
    patch_size: int = at_least(1, 16)
    image_tower: str = "B"
    text_tower: str = "B"
    vocab_size: int = at_least(3, 32_000)
    text_length: int = at_least(2, 64)
    pooling: Pooling = "map"
    has_mask_token: bool = False
    has_text_tower: bool = True
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    remat: Remat = "none"
    scan_unroll: int = at_least(1, 1)
    attn_impl: AttnImpl = "auto"

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise UserError(
                f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}"
            )
        for name in (self.image_tower, self.text_tower):
            tower_size(name)

    @property
    def image_dims(self) -> TowerSize:
        """Dimensions of the image tower."""
        return tower_size(self.image_tower)

    @property
    def text_dims(self) -> TowerSize:
        """Dimensions of the text tower."""
        return tower_size(self.text_tower)

    @property
    def embed_dim(self) -> int:
        """Width of patch tokens and of both pooled vectors."""
        return self.image_dims.embed_dim

    @property
    def grid(self) -> int:
        """Patches per side of an `image_size` image."""
        return self.image_size // self.patch_size

    def init(self, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters of the towers."""
        image_key, text_key = jax.random.split(key)
        everything = Wants(pooled=True)
        pixels = jnp.zeros((1, self.image_size, self.image_size, 3))
        params = {"image": self._image.init(image_key, pixels, wants=everything)["params"]}
        if self.has_text_tower:
            ids = jnp.ones((1, self.text_length), jnp.int32)
            positions = range(self.text_length)
            text = self._text.init(text_key, ids, positions=positions, wants=everything)
            params["text"] = text["params"]
        return params

    def image(
        self,
        params: Params,
        pixels: Float[Array, "*b h w 3"],
        wants: Wants,
        *,
        patch_mask: Bool[Array, "*b n"] | None = None,
        mask_mode: MaskMode = "replace",
        num_kept: int | None = None,
        attn_mask: Bool[Array, "*b n n"] | None = None,
    ) -> Features:
        """The image tower with `params["image"]`; arguments as of `ImageTower.__call__`.

        A teacher has no mask token: it never sees a masked image.
        """
        tower = self._image.clone(has_mask_token="mask_token" in params["image"])
        return tower.apply(
            {"params": params["image"]},
            pixels,
            wants=wants,
            patch_mask=patch_mask,
            mask_mode=mask_mode,
            num_kept=num_kept,
            attn_mask=attn_mask,
        )

    def text(
        self,
        params: Params,
        ids: Int32[Array, "*b t"],
        wants: Wants,
        *,
        positions: Sequence[int] | None = None,
    ) -> Features:
        """The text tower with `params["text"]`.

        Texts shorter than `text_length` are pooled at its last position unless `positions` says
        otherwise.
        """
        if positions is None:
            positions = text_positions(ids.shape[-1], self.text_length - 1)
        return self._text.apply({"params": params["text"]}, ids, positions=positions, wants=wants)

    @functools.cached_property
    def _compute(self) -> Compute:
        return Compute(
            dtype=self.dtype,
            remat=self.remat,
            scan_unroll=self.scan_unroll,
            attn_impl=self.attn_impl,
        )

    @functools.cached_property
    def _image(self) -> ImageTower:
        return ImageTower(
            size=self.image_dims,
            compute=self._compute,
            patch_size=self.patch_size,
            base_grid=self.grid,
            pooling=self.pooling,
            has_mask_token=self.has_mask_token,
        )

    @functools.cached_property
    def _text(self) -> TextTower:
        return TextTower(
            size=self.text_dims,
            compute=self._compute,
            vocab_size=self.vocab_size,
            length=self.text_length,
            pooled_dim=self.embed_dim,
        )
