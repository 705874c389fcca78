# SPDX-License-Identifier: Apache-2.0
"""A trained encoder with all it takes to use it: what is exported, and what is loaded."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int32, UInt8

from input_pipeline.image_spec import SIGLIP_IMAGES, ImageSpec
from input_pipeline.tokenizer import Tokenizer
from mtv_jax.core.errors import UserError
from mtv_jax.core.passes import Features, Wants
from mtv_jax.interop.preprocessing import ImageLike, preprocessing_spec, read_image
from mtv_jax.models.encoder import Encoder
from mtv_jax.objectives.base import Objective, predict_maps

LOGITS_HEAD = "vl_logits"  # its two scalars are part of a SigLIP model


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedEncoder:
    """Towers, those heads that predict something, tokenizer.

    Computes in float32, matmuls at JAX's default precision (TF32 on recent GPUs).

    Attributes:
        encoder: the model.
        params: {"backbone": {"image", "text"}, "heads": {name: …}}; "text" only with a text tower.
        objectives: those whose predictions can be asked for, by name.
        images: what the image tower reads.
        tokenizer: texts to ids; None without a text tower.
        pools: whether its pooled vectors were trained; if not, only patch tokens mean something.
        provenance: JSON values: run, step, config, data.
        report: what was found where it was read from, in words.
    """

    encoder: Encoder
    params: Mapping[str, Any]
    objectives: Mapping[str, Objective] = dataclasses.field(default_factory=dict)
    images: ImageSpec = SIGLIP_IMAGES
    tokenizer: Tokenizer | None = None
    pools: bool = True
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    report: str = ""

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What happens to images and texts before the towers."""
        return preprocessing_spec(self.encoder, self.images, self.tokenizer)

    @property
    def logit_scalars(self) -> dict[str, float]:
        """ "scale" (a log) and "bias" of image-text logits.

        Raises:
            UserError: trained without image-text contrast.
        """
        head = self.params["heads"].get(LOGITS_HEAD)
        if head is None:
            raise UserError("this model was trained without image-text contrast: it has no logits")
        return {"scale": float(head["logit_scale"]), "bias": float(head["logit_bias"])}

    def pixels(self, images: Sequence[ImageLike]) -> Float[np.ndarray, "b h w 3"]:
        """Arrays (uint8 [h, w, 3]), Pillow images or paths, as the image tower reads them."""
        return self.images.pixels(self.squash(images))

    def squash(self, images: Sequence[ImageLike]) -> UInt8[np.ndarray, "b size size 3"]:
        """The same before values become floats: squares of the model's size."""
        side = self.encoder.image_size
        return np.stack([self.images.squash(read_image(image), side) for image in images])

    def encode_image(self, pixels: Float[np.ndarray, "*b h w 3"], wants: Wants) -> Features:
        """Patch tokens, taps or pooled vectors of pixels in [-1, 1]; any size of whole patches."""
        return self._image(self.params["backbone"], pixels, wants)

    def image_features(self, images: Sequence[ImageLike]) -> Float[np.ndarray, "b d"]:
        """Pooled vectors, not normalised."""
        features = self.encode_image(self.pixels(images), Wants(pooled=True))
        return np.asarray(features.pooled)

    def text_features(self, texts: Sequence[str]) -> Float[np.ndarray, "b d"]:
        """Pooled vectors, not normalised.

        Raises:
            UserError: there is no text tower.
        """
        if self.tokenizer is None:
            raise UserError("this model has no text tower; train one with tasks=vl")
        return self.encode_ids(np.stack([self.tokenizer.encode(text) for text in texts]))

    def encode_ids(self, ids: Int32[np.ndarray, "b t"]) -> Float[np.ndarray, "b d"]:
        """Pooled vectors of token ids, not normalised."""
        return np.asarray(self._text(self.params["backbone"], ids))

    def logits(self, images: Sequence[ImageLike], texts: Sequence[str]) -> Float[np.ndarray, "i t"]:
        """What the sigmoid turns into match probabilities, per image and text."""
        image, text = unit(self.image_features(images)), unit(self.text_features(texts))
        return match_logits(image, text, **self.logit_scalars)

    def maps(self, images: Sequence[ImageLike]) -> dict[str, Float[np.ndarray, "b h w *c"]]:
        """Every dense prediction, "objective/map" → squares of `image_size`: depth/disparity."""
        pixels = self.pixels(images)
        return {
            f"{name}/{key}": np.asarray(value)
            for name in self.objectives
            for key, value in self._maps[name](self.params, pixels).items()
        }

    def map_names(self, objective: str) -> list[str]:
        """What an objective predicts, without computing it."""
        side = self.encoder.image_size
        pixels = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
        predict = functools.partial(predict_maps, self.encoder, self.objectives[objective])
        return sorted(jax.eval_shape(predict, self.params, pixels))

    @functools.cached_property
    def _image(self) -> Callable[[Mapping[str, Any], Array, Wants], Features]:
        return jax.jit(self.encoder.image, static_argnums=2)

    @functools.cached_property
    def _text(self) -> Callable[[Mapping[str, Any], Array], Array]:
        return jax.jit(
            lambda params, ids: self.encoder.text(params, ids, Wants(pooled=True)).pooled
        )

    @functools.cached_property
    def _maps(self) -> dict[str, Callable[..., dict[str, Array]]]:
        return {
            name: jax.jit(functools.partial(predict_maps, self.encoder, objective))
            for name, objective in self.objectives.items()
        }


def unit(x: np.ndarray) -> np.ndarray:
    """Rows scaled to unit norm."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def match_logits(image: np.ndarray, text: np.ndarray, *, scale: float, bias: float) -> np.ndarray:
    """[i, t] logits of unit embeddings; `scale` is the log of the factor."""
    return np.exp(np.float32(scale)) * (image @ text.T) + np.float32(bias)
