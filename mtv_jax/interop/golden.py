# SPDX-License-Identifier: Apache-2.0
"""Fixed inputs and our float32 outputs on them, stored beside exported weights.

Whoever ports the model can check every stage against them: decoded images, resized images, ids,
embeddings and logits.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from input_pipeline.tokenizer import Tokenizer
from mtv_jax.core.passes import Wants
from mtv_jax.interop.preprocessing import squash, to_pixels
from mtv_jax.models.encoder import Encoder

FILE = "golden.npz"

TEXTS = (
    "a photo of a cat",
    "Two RED cubes, left of a blue sphere!",
    "naïve café — 12 €  on   the\ttable\n",
    "don't stop: (really) don't",
    " ".join(["a very long caption that does not fit"] * 40),
    "",
)
_SIZES = ((64, 64), (97, 143), (240, 180), (333, 500))  # height, width


def golden_images() -> list[np.ndarray]:
    """uint8 [h, w, 3] patterns of several sizes: smooth, striped, and with hard edges."""
    images = []
    for index, (height, width) in enumerate(_SIZES):
        y, x = np.mgrid[:height, :width] / max(height, width)
        waves = [np.sin((3 + 4 * index) * (c + 1) * (x * x + y) + c) for c in range(3)]
        image = 0.5 + 0.4 * np.stack(waves, axis=-1)
        image[(x > 0.3) & (y > 0.2 + x / 2)] *= 0.3
        images.append(np.round(image * 255).astype(np.uint8))
    return images


def golden_arrays(
    encoder: Encoder, params: Mapping[str, Any], tokenizer: Tokenizer
) -> dict[str, np.ndarray]:
    """Inputs and outputs by name.

    image_0, …: uint8 [h, w, 3]; texts [t] str; resized: uint8 [i, size, size, 3]; ids: int32
    [t, length]; image_embeds [i, d] and text_embeds [t, d], of unit norm; logits_per_image [i, t].

    Args:
        encoder: any compute dtype; outputs are computed in float32.
        params: `{"image": …, "text": …, "logit_scale": …, "logit_bias": …}`.
        tokenizer: the model's.
    """
    images = golden_images()
    resized = squash(images, encoder.image_size)
    ids = np.stack([tokenizer.encode(text) for text in TEXTS])
    return {
        **{f"image_{index}": image for index, image in enumerate(images)},
        "texts": np.array(TEXTS),
        "resized": resized,
        "ids": ids,
        **embed(encoder, params, to_pixels(resized), ids),
    }


def embed(
    encoder: Encoder, params: Mapping[str, Any], pixels: np.ndarray, ids: np.ndarray
) -> dict[str, np.ndarray]:
    """Unit embeddings and logits, float32, under the names that transformers gives them."""
    encoder = dataclasses.replace(encoder, dtype="float32", attn_impl="xla")
    wants = Wants(pooled=True)

    @jax.jit
    def towers(params: Mapping[str, Any], pixels: jax.Array, ids: jax.Array) -> Any:
        image, text = encoder.image(params, pixels, wants), encoder.text(params, ids, wants)
        return image.pooled, text.pooled

    with jax.default_matmul_precision("highest"):
        image, text = (unit(np.asarray(pooled)) for pooled in towers(params, pixels, ids))
    scale, bias = float(params["logit_scale"]), float(params["logit_bias"])
    logits = match_logits(image, text, scale=scale, bias=bias)
    return {"image_embeds": image, "text_embeds": text, "logits_per_image": logits}


def unit(x: np.ndarray) -> np.ndarray:
    """Rows scaled to unit norm."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def match_logits(image: np.ndarray, text: np.ndarray, *, scale: float, bias: float) -> np.ndarray:
    """[i, t] logits of unit embeddings; `scale` is the log of the factor."""
    return np.exp(np.float32(scale)) * (image @ text.T) + np.float32(bias)
