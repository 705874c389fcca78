# SPDX-License-Identifier: Apache-2.0
"""From images and texts as users have them to what the towers read.

The exported folder describes this in one dictionary, so that a reader in any language can check
that it does the same.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from input_pipeline.decode import decode_image, open_header
from input_pipeline.image_spec import ImageSpec
from input_pipeline.tokenizer import Tokenizer
from mtv_jax.interop.hf_files import tokenizer_file
from mtv_jax.models.encoder import Encoder

ImageLike = np.ndarray | Image.Image | str | os.PathLike[str]  # arrays are uint8 [h, w, 3]

_ORIENTATION = 0x0112  # an EXIF tag
_KERNELS = {
    "bicubic": "Pillow BICUBIC (antialiased, a = -0.5) on uint8",
    "bilinear": "Pillow BILINEAR (antialiased) on uint8",
}


def preprocessing_spec(
    encoder: Encoder, images: ImageSpec, tokenizer: Tokenizer | None
) -> dict[str, Any]:
    """What happens to images and texts before the towers, as JSON values."""
    spec = {
        "image_size": encoder.image_size,
        "image_fit": "squash to a square",
        "image_resize": _KERNELS[images.resample],
        "image_range": [images.low, images.high],
    }
    if tokenizer is None:
        return spec
    return {
        **spec,
        "text_length": encoder.text_length,
        "text_canonical": tokenizer.canonical,
        "tokenizer": tokenizer_file(tokenizer),
        "tokenizer_sha256": tokenizer.sha256,
        "text_end": tokenizer.end,
    }


def images_of(spec: Mapping[str, Any]) -> ImageSpec:
    """The images that a spec describes.

    Raises:
        KeyError, ValueError: a spec of another version.
    """
    kernels = {words: kernel for kernel, words in _KERNELS.items()}
    low, high = spec["image_range"]
    return ImageSpec(resample=kernels[spec["image_resize"]], low=low, high=high)


def spec_differences(spec: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """Where two specs differ, in words: the first's value, then the second's."""
    keys = sorted(key for key in {*spec, *stored} if spec.get(key) != stored.get(key))
    return [f"{key} is {spec.get(key)!r}, was {stored.get(key)!r}" for key in keys]


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
