# SPDX-License-Identifier: Apache-2.0
"""Fixed inputs and our float32 outputs on them, stored beside exported weights.

Whoever ports the model can check every stage against them: decoded images, resized images, ids,
embeddings and logits.
"""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from mtv_jax.core.passes import Wants
from mtv_jax.interop.trained import TrainedEncoder, match_logits, unit

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


def golden_arrays(trained: TrainedEncoder) -> dict[str, np.ndarray]:
    """Inputs and outputs by name.

    image_0, …: uint8 [h, w, 3]; resized: uint8 [i, size, size, 3]; image_embeds [i, d] of unit
    norm; "objective/map" [i, size, size]: what the heads predict. With a text tower also texts [t]
    str; ids: int32 [t, length]; text_embeds [t, d] of unit norm; logits_per_image [i, t].
    """
    images = golden_images()
    arrays = {f"image_{index}": image for index, image in enumerate(images)}
    arrays["resized"] = trained.squash(images)
    if trained.tokenizer:
        arrays["texts"] = np.array(TEXTS)
        arrays["ids"] = np.stack([trained.tokenizer.encode(text) for text in TEXTS])
    return arrays | golden_outputs(trained, arrays)


def golden_outputs(
    trained: TrainedEncoder, inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Outputs on "resized" and "ids" in float32, under the names that transformers gives them."""
    exact = dataclasses.replace(trained.encoder, dtype="float32", attn_impl="xla")
    trained = dataclasses.replace(trained, encoder=exact)
    wants, pixels = Wants(pooled=True), trained.images.pixels(inputs["resized"])
    with jax.default_matmul_precision("highest"):
        image = unit(np.asarray(trained.encode_image(pixels, wants).pooled))
        outputs = {"image_embeds": image, **trained.maps([*inputs["resized"]])}
        if "ids" not in inputs:
            return outputs
        text = unit(np.asarray(trained.encode_ids(inputs["ids"])))
    logits = match_logits(image, text, **trained.logit_scalars)
    return outputs | {"text_embeds": text, "logits_per_image": logits}
