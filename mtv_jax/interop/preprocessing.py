# SPDX-License-Identifier: Apache-2.0
"""From images and texts as users have them to what the towers read.

The exported folder describes this in one dictionary, so that a reader in any language can check
that it does the same.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps

from input_pipeline.decode import decode_image, open_header, resize_for_eval
from input_pipeline.tokenizer import EOS, Tokenizer
from mtv_jax.interop.hf_files import TOKENIZER_MODEL
from mtv_jax.models.encoder import Encoder

ImageLike = np.ndarray | Image.Image | str | os.PathLike[str]  # arrays are uint8 [h, w, 3]

_ORIENTATION = 0x0112  # an EXIF tag


def preprocessing_spec(encoder: Encoder, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """What happens to images and texts before the towers, as JSON values."""
    images = {
        "image_size": encoder.image_size,
        "image_fit": "squash to a square",
        "image_resize": "Pillow BICUBIC (antialiased, a = -0.5) on uint8",
        "image_range": [-1.0, 1.0],
    }
    if tokenizer is None:
        return images
    return {
        **images,
        "text_length": encoder.text_length,
        "text_canonical": "underscores to spaces, ASCII punctuation removed, lower case, "
        "white space collapsed",
        "tokenizer": TOKENIZER_MODEL,
        "tokenizer_sha256": tokenizer.sha256,
        "text_end": f"id {EOS} after the text and up to the last slot, also when truncated",
    }


def read_image(image: ImageLike) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of an array, of a Pillow image, or of a file turned upright by its EXIF tag.

    Raises:
        OSError: a file that cannot be read.
        DecodeError: a file that holds no image we read, or too large a one.
        ValueError: an array that is not uint8 [h, w, 3].
    """
    if isinstance(image, str | os.PathLike):
        data = pathlib.Path(image).read_bytes()
        picture = Image.fromarray(decode_image(data))
        picture.getexif()[_ORIENTATION] = open_header(data).getexif().get(_ORIENTATION, 1)
        return np.asarray(ImageOps.exif_transpose(picture))
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"an image of {image.dtype} {list(image.shape)}, not uint8 [h, w, 3]")
    return image


def squash(images: Sequence[ImageLike], size: int) -> UInt8[np.ndarray, "b size size 3"]:
    """Images resized to squares."""
    return np.stack([resize_for_eval(read_image(image), size) for image in images])


def to_pixels(images: UInt8[np.ndarray, "b h w 3"]) -> Float[np.ndarray, "b h w 3"]:
    """uint8 to float32 in [-1, 1]."""
    return images.astype(np.float32) / 127.5 - 1.0
