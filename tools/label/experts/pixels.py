# SPDX-License-Identifier: Apache-2.0
"""From an image to what a network sees, as the processors of `transformers` say.

Their settings are obeyed, their code is not run: it takes ten times the time, and gives other
pixels where torchvision is installed. These are the pixels of the processors without torchvision.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from mtv_jax.core.errors import UserError

_SIDES = ("height", "width")


def fitted(
    image: UInt8[np.ndarray, "h w 3"], settings: Mapping[str, Any]
) -> Float32[np.ndarray, "3 height width"]:
    """As `DPTImageProcessor`: resized to about `size`, in multiples of a patch, then normalised.

    The side whose scale is nearer to 1 is fitted, which for an image smaller than `size` is the
    long one.
    """
    height, width = fitted_size(image.shape[:2], settings)
    resample = Image.Resampling(settings["resample"])
    resized = np.asarray(Image.fromarray(image).resize((width, height), resample))
    return _normalised(cv2.split(resized), settings)


def fitted_size(size: tuple[int, int], settings: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of what `fitted` gives of an image of (height, width)."""
    scales = [settings["size"][name] / side for name, side in zip(_SIDES, size, strict=True)]
    if settings["keep_aspect_ratio"]:
        scales = [min(scales, key=lambda scale: abs(1 - scale))] * 2
    multiple = settings["ensure_multiple_of"]
    height, width = (
        _multiple(scale * side, multiple) for scale, side in zip(scales, size, strict=True)
    )
    return height, width


def _multiple(side: float, multiple: int) -> int:
    return max(round(side / multiple), 1) * multiple


def padded_square(
    image: UInt8[np.ndarray, "h w 3"], settings: Mapping[str, Any]
) -> Float32[np.ndarray, "3 size size"]:
    """As `Owlv2ImageProcessor`: black below or at the right, resized, then normalised.

    Resizing is linear, smoothed before where it makes the image smaller, as scikit-image does it.
    """
    height, width = image.shape[:2]
    resize = _resizing(max(height, width), settings["size"]["height"])
    rows = resize[:, :height] @ image.reshape(height, -1).astype(np.float32)
    across = np.ascontiguousarray(rows.reshape(-1, width, 3).transpose(1, 2, 0))  # w, colour, y
    both = resize[:, :width] @ across.reshape(width, -1)
    return _normalised(both.reshape(-1, *across.shape[1:]).transpose(1, 2, 0), settings)


@functools.lru_cache(maxsize=1024)
def _resizing(length: int, size: int) -> Any:
    """What resizing does to a column of `length` pixels: sparse, [size, length]."""
    try:
        from scipy import ndimage, sparse
    except ImportError as error:
        raise UserError(f"OWLv2 needs SciPy ({error}): pip install scipy") from error
    sigma = max(0.0, (length / size - 1) / 2)
    columns = ndimage.gaussian_filter(np.eye(length), (sigma, 0), mode="mirror")
    zoomed = ndimage.zoom(columns, (size / length, 1), order=1, mode="mirror", grid_mode=True)
    return sparse.csr_array(zoomed.astype(np.float32))


def _normalised(
    planes: Sequence[np.ndarray] | np.ndarray, settings: Mapping[str, Any]
) -> Float32[np.ndarray, "3 height width"]:
    """Rescaled, less the mean, over the standard deviation, colour by colour."""
    result = np.empty((len(planes), *planes[0].shape), np.float32)
    statistics = zip(settings["image_mean"], settings["image_std"], strict=True)
    for values, plane, (mean, std) in zip(result, planes, statistics, strict=True):
        np.multiply(plane, np.float32(settings["rescale_factor"] / std), out=values)
        values -= np.float32(mean / std)
    return result
