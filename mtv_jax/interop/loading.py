# SPDX-License-Identifier: Apache-2.0
"""Reads an exported folder back as a JAX encoder, bit for bit what was exported."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Array, Float

from input_pipeline.tokenizer import Tokenizer
from mtv_jax.core.config import build
from mtv_jax.core.errors import UserError
from mtv_jax.core.passes import Features, Wants
from mtv_jax.interop.golden import match_logits, unit
from mtv_jax.interop.hf_files import TOKENIZER_MODEL
from mtv_jax.interop.name_map import from_hf
from mtv_jax.interop.preprocessing import ImageLike, preprocessing_spec, squash, to_pixels
from mtv_jax.interop.save import FORMAT, MODEL_FILE, WEIGHTS_FILE
from mtv_jax.models.encoder import Encoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedEncoder:
    """An exported encoder with its tokenizer and preprocessing.

    Computes in float32, matmuls at JAX's default precision (TF32 on recent GPUs).

    Attributes:
        encoder: the model.
        params: `{"image": …, "text": …}`.
        logit_scale: log of the temperature factor.
        logit_bias: added to the logits.
        tokenizer: texts to ids.
        preprocessing: what happens to images and texts, as stored.
        provenance: what the exporter said about the model's origin.
    """

    encoder: Encoder
    params: Mapping[str, Any]
    logit_scale: float
    logit_bias: float
    tokenizer: Tokenizer
    preprocessing: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def pixels(self, images: Sequence[ImageLike]) -> Float[np.ndarray, "b h w 3"]:
        """Arrays (uint8 [h, w, 3]), Pillow images or paths, as the image tower reads them."""
        return to_pixels(squash(images, self.encoder.image_size))

    def encode_image(self, pixels: Float[np.ndarray, "*b h w 3"], wants: Wants) -> Features:
        """Patch tokens, taps or pooled vectors of pixels in [-1, 1]; any size of whole patches."""
        return self._image(self.params, pixels, wants)

    def image_features(self, images: Sequence[ImageLike]) -> Float[np.ndarray, "b d"]:
        """Pooled vectors, not normalised."""
        features = self.encode_image(self.pixels(images), Wants(pooled=True))
        return np.asarray(features.pooled)

    def text_features(self, texts: Sequence[str]) -> Float[np.ndarray, "b d"]:
        """Pooled vectors, not normalised."""
        ids = np.stack([self.tokenizer.encode(text) for text in texts])
        return np.asarray(self._text(self.params, ids))

    def logits(self, images: Sequence[ImageLike], texts: Sequence[str]) -> Float[np.ndarray, "i t"]:
        """What the sigmoid turns into match probabilities, per image and text."""
        image, text = unit(self.image_features(images)), unit(self.text_features(texts))
        return match_logits(image, text, scale=self.logit_scale, bias=self.logit_bias)

    @functools.cached_property
    def _image(self) -> Callable[[Mapping[str, Any], Array, Wants], Features]:
        return jax.jit(self.encoder.image, static_argnums=2)

    @functools.cached_property
    def _text(self) -> Callable[[Mapping[str, Any], Array], Array]:
        return jax.jit(
            lambda params, ids: self.encoder.text(params, ids, Wants(pooled=True)).pooled
        )


def load_folder(directory: str | os.PathLike[str]) -> LoadedEncoder:
    """The encoder in an exported folder.

    Raises:
        UserError: no export there, an incomplete one, or one of another format.
    """
    root = pathlib.Path(directory)
    description = _read_description(root)
    encoder = build(Encoder, {**description["encoder"], "dtype": "float32"}, "mtv.json encoder")
    tokenizer = Tokenizer(str(root / TOKENIZER_MODEL), encoder.text_length)
    spec = preprocessing_spec(encoder, tokenizer)
    stored = description["preprocessing"]
    if different := sorted(key for key in {*spec, *stored} if spec.get(key) != stored.get(key)):
        raise UserError(
            f"{root} was exported with another {different[0]}: {stored.get(different[0])!r}, not "
            f"{spec.get(different[0])!r}; restore its files or use the version that wrote it"
        )
    tree = from_hf(_read_weights(root / WEIGHTS_FILE), _shapes(encoder))
    return LoadedEncoder(
        encoder=encoder,
        params={"image": tree["image"], "text": tree["text"]},
        logit_scale=float(tree["logit_scale"]),
        logit_bias=float(tree["logit_bias"]),
        tokenizer=tokenizer,
        preprocessing=stored,
        provenance=description["provenance"],
    )


def _read_description(root: pathlib.Path) -> dict[str, Any]:
    path = root / MODEL_FILE
    if not path.is_file():
        raise UserError(
            f"{root} holds no exported model ({MODEL_FILE} is missing); "
            "write one with `python -m mtv_jax.export`"
        )
    description = json.loads(path.read_text(encoding="utf-8"))
    if description.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {description.get('format')}, this version reads {FORMAT}; "
            "export the model again"
        )
    return description


def _read_weights(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"cannot read the weights {path}: {error}") from error


def _shapes(encoder: Encoder) -> dict[str, Any]:
    scalar = np.zeros(())
    shapes = jax.eval_shape(encoder.init, jax.random.key(0))
    return {**shapes, "logit_scale": scalar, "logit_bias": scalar}
