# SPDX-License-Identifier: Apache-2.0
"""From encoded bytes to pixels: the one place that decodes, so that every reader sees the same.

EXIF orientation is never applied here. Stored images are already upright, and a decoder that
rotates them (OpenCV does unless told not to) would turn the image away from its boxes and depth.
"""

import io
import math

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from mtv_jax.core.errors import UserError

MAX_PIXELS = 178_956_970  # where Pillow, too, refuses
_JPEG_MAGIC = b"\xff\xd8\xff"
_MIN_REDUCTION = 2  # decoding at a reduced scale saves time from here on
_REDUCED_HEADROOM = 1.5  # the reduced decode is a hard cut in frequency: leave the resize some room
_MAX_CUBIC_SHRINK = 1.2  # up to here a cubic without antialiasing shows no aliasing

cv2.setNumThreads(0)  # parallelism is one process a core; OpenCV's own threads would fight it


class DecodeError(UserError):
    """Bytes that cannot be decoded, damaged ones among them."""


class NotAnImage(DecodeError):
    """Bytes that no decoder recognises."""


class TooManyPixels(DecodeError):
    """An image that would take too much memory, by what its header says."""


def decode_image(data: bytes, *, min_side: int | None = None) -> np.ndarray:
    """Decodes a JPEG, PNG, WebP or whatever else OpenCV or Pillow reads.

    Args:
        data: the encoded image.
        min_side: the side in pixels that the image will be resized to; None decodes in full. A
            JPEG at least three times as large is decoded at a reduced scale, which is faster, to
            no less than one and a half times this side.

    Returns:
        uint8 [h, w, 3] RGB.

    Raises:
        DecodeError: not an image, a damaged one, or one of more than `MAX_PIXELS` pixels.
    """
    if data.startswith(_JPEG_MAGIC):
        image = _decode_jpeg(data, min_side or 0)
        if image is not None:
            return image
    check_size(*open_header(data).size)
    pixels = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if pixels is not None:
        return pixels
    try:
        return np.array(open_header(data).convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DecodeError(f"cannot decode the image: {error}") from error


def open_header(data: bytes) -> Image.Image:
    """A Pillow image with its header read and its pixels not yet; DecodeError if it is none."""
    try:
        return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise TooManyPixels(str(error)) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise NotAnImage("not an image that OpenCV or Pillow reads") from error


def check_size(width: int, height: int) -> None:
    """Refuses a decompression bomb by its header, before any pixel is decoded."""
    if width * height > MAX_PIXELS:
        raise TooManyPixels(f"{width}x{height} is over the limit of {MAX_PIXELS:,} pixels")


def to_canvas(image: np.ndarray, side: int) -> np.ndarray:
    """Squashes `image` to a square, keeping as much detail as a window cut from it later needs.

    Lanczos where it shrinks much, because area averaging and antialiased cubic both blur a second
    time what the later cut blurs once: against cutting the original they keep 0.80 to 0.95 of the
    gradient energy, Lanczos 0.98 to 1.00.

    Args:
        image: uint8 [h, w, 3].
        side: side of the canvas in pixels.

    Returns:
        uint8 [side, side, 3].
    """
    if max(image.shape[:2]) > _MAX_CUBIC_SHRINK * side:
        canvas = Image.fromarray(image).resize(
            (side, side), Image.Resampling.LANCZOS, reducing_gap=2.0
        )
        return np.asarray(canvas)
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)


def resize_map(raster: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A one-channel map as float32 of (height, width) `size`: bilinear, area means to shrink."""
    height, width = size
    raster = np.asarray(raster, np.float32)
    if raster.shape == (height, width):
        return raster
    shrinks = raster.shape[0] > height and raster.shape[1] > width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(raster, (width, height), interpolation=interpolation)


def encode_png16(raster: np.ndarray, *, compression: int | None = None) -> bytes:
    """Lossless PNG of a uint16 [h, w] raster.

    Args:
        raster: to encode.
        compression: of zlib, 0 to 9; by default OpenCV's choice, which is fast.
    """
    if raster.dtype != np.uint16 or raster.ndim != 2:
        raise ValueError(f"want uint16 [h, w], got {raster.dtype} {list(raster.shape)}")
    how = [] if compression is None else [cv2.IMWRITE_PNG_COMPRESSION, compression]
    return cv2.imencode(".png", raster, how)[1].tobytes()


def decode_png16(data: bytes) -> np.ndarray:
    """The uint16 [h, w] raster in a 16-bit gray PNG; DecodeError for anything else."""
    check_size(*open_header(data).size)
    raster = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if raster is None or raster.dtype != np.uint16 or raster.ndim != 2:
        raise DecodeError("not a 16-bit gray PNG")
    return raster


def _decode_jpeg(data: bytes, min_side: int) -> np.ndarray | None:
    """The pixels, or None where the header is beyond this decoder and another may manage.

    A scan that ends early or does not parse is an error here. The other decoders fill such a hole
    with gray and say nothing, so they are not asked.
    """
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    check_size(width, height)
    wanted = math.ceil(_REDUCED_HEADROOM * min_side)
    reduce = min_side > 0 and min(height, width) >= _MIN_REDUCTION * wanted
    try:
        if reduce:
            return simplejpeg.decode_jpeg(
                data, min_height=wanted, min_width=wanted, min_factor=_MIN_REDUCTION
            )
        return simplejpeg.decode_jpeg(data)
    except ValueError as error:
        raise DecodeError(f"damaged JPEG: {error}") from error
