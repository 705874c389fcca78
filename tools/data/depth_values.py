# SPDX-License-Identifier: Apache-2.0
"""From the file of a depth map to the raster that a store holds beside an image."""

import math
import pathlib
from typing import Literal

import cv2
import numpy as np

from input_pipeline import decode
from tools.data.checks import size_fault

Quantity = Literal["depth", "disparity"]

FORMATS = (".png", ".npy")
_UINT16 = 65535
_LABEL_SIDE = 288  # the short side at which MTV stores depth
_ASPECT_TOLERANCE = 0.02


class Rejected(Exception):
    """A map that cannot be used: a reason to count it under, and the details."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def read_map(path: pathlib.Path) -> np.ndarray:
    """The numbers of a map, [h, w], of the type that the file has.

    Raises:
        Rejected: the file cannot be read or holds something else.
    """
    try:
        if path.suffix == ".npy":
            with open(path, "rb") as file:
                values = np.lib.format.read_array(file, allow_pickle=False)
        else:
            data = path.read_bytes()
            decode.check_size(*decode.open_header(data).size)
            values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, ValueError) as error:
        raise Rejected("cannot be read", str(error)) from error
    if values is None:
        raise Rejected("cannot be read", "damaged PNG")
    if values.ndim != 2 or not values.size:
        shape = "x".join(map(str, values.shape)) or "one number"
        raise Rejected("want one gray channel: height x width", f"is {shape}")
    if values.dtype.kind not in "uif":
        raise Rejected("want numbers", f"is {values.dtype}")
    return values


def fitted_size(
    shape: tuple[int, ...], image_size: tuple[int, int], max_short_side: float
) -> tuple[int, int]:
    """The (height, width) at which a map is stored: the aspect of its image to within a pixel.

    Args:
        shape: (height, width) of the map.
        image_size: (height, width) of the stored image.
        max_short_side: a larger map is shrunk to this.

    Raises:
        Rejected: the two do not have the same aspect.
    """
    (height, width), (image_height, image_width) = shape, image_size
    detail = f"is {height}x{width}, the stored image {image_height}x{image_width} (height x width)"
    if not _same_aspect((height, width), image_size):
        if _same_aspect((width, height), image_size):
            reason = "turned by a quarter: stored images are upright (EXIF applied), turn the map"
            raise Rejected(reason, detail)
        raise Rejected("another aspect than the stored image", detail)
    side = min(height, width, max_short_side)
    if side == min(height, width) and not size_fault((height, width), image_size, exact=False):
        return height, width
    scale = side / min(image_size)
    return round(image_height * scale), round(image_width * scale)


def to_label(
    values: np.ndarray, are: Quantity, image_size: tuple[int, int], max_unknown: float
) -> np.ndarray:
    """Disparity for training: uint16 [h, w], short side at most 288, from 0 to 65535.

    Args:
        values: [h, w] numbers.
        are: what they are.
        image_size: (height, width) of the stored image.
        max_unknown: share of unknown pixels up to which they are filled.

    Raises:
        Rejected: the map does not fit the image, knows too little or says nothing.
    """
    height, width = fitted_size(values.shape, image_size, _LABEL_SIDE)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        disparity = values.astype(np.float32)
        known = np.isfinite(disparity)
        if are == "depth":
            known &= disparity > 0
            disparity = 1 / disparity
            known &= np.isfinite(disparity)
    unknown = 1 - known.mean()
    if unknown > max_unknown:
        raise Rejected("too many unknown pixels: see --max_unknown", f"{unknown:.3f} are unknown")
    disparity = _fill(disparity, known)
    if disparity.shape != (height, width):
        disparity = cv2.resize(disparity, (width, height), interpolation=cv2.INTER_AREA)
    low, high = disparity.min(), disparity.max()
    if low == high:
        raise Rejected("constant", f"is {values[known][0]} everywhere")
    return np.round((disparity - low) / (high - low) * _UINT16).astype(np.uint16)


def to_truth(values: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Numbers to measure against: uint16 [h, w], 0 = unknown.

    Args:
        values: [h, w] depth or disparity.
        image_size: (height, width) of the stored image.

    Raises:
        Rejected: the map does not fit the image or knows nothing.
    """
    height, width = fitted_size(values.shape, image_size, math.inf)
    known = np.isfinite(values) & (values > 0)
    if not known.any():
        raise Rejected("no known pixel", "all numbers are 0, negative or not finite")
    truth = np.where(known, values, 0)
    if values.dtype.kind == "f" or truth.max() > _UINT16:
        scaled = truth.astype(np.float64) / float(truth.max()) * _UINT16
        truth = np.where(known, np.maximum(np.round(scaled), 1), 0)
    truth = truth.astype(np.uint16)
    if truth.shape == (height, width):
        return truth
    return cv2.resize(truth, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def _same_aspect(size: tuple[int, int], image_size: tuple[int, int]) -> bool:
    ratio = size[0] * image_size[1] / (size[1] * image_size[0])
    return abs(ratio - 1) <= _ASPECT_TOLERANCE


def _fill(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`values` with those that are not `known` taken from the nearest that is."""
    if known.all():
        return values
    nearest = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )[1]
    labels = nearest.astype(np.intp)
    by_label = np.zeros(labels.max() + 1, values.dtype)
    by_label[labels[known]] = values[known]
    return by_label[labels]
