# SPDX-License-Identifier: Apache-2.0
"""From whatever bytes a source holds to the image that is stored, or the reason why not.

A stored image is an upright 8-bit RGB JPEG whose short side is at least `min_side` and whose long
side is at most `max_side`, its aspect kept (section 5.1 of the paper: 224 and 1024). A source JPEG
that is all this already keeps its bytes.
"""

import dataclasses

import numpy as np
import simplejpeg
from PIL import Image

from input_pipeline import decode

# Sources are mostly JPEGs once quantised already; at 95 with full chroma the second time costs
# about 1.5/255 on photographs. Half chroma would save 17 % of the bytes and cost 1.9/255.
JPEG_QUALITY = 95
JPEG_SUBSAMPLING = "444"

_JPEG_MAGIC = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_EXIF_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is kept.

    Attributes:
        min_side: shortest short side of a stored image, in pixels.
        max_side: longest long side of a stored image, in pixels.
        max_enlarge: a smaller image is enlarged to `min_side` by at most this factor; 1 never.
    """

    min_side: int = 224
    max_side: int = 1024
    max_enlarge: float = 5.0


@dataclasses.dataclass(frozen=True)
class Curated:
    """An image ready to be stored: JPEG bytes, height, width, and what was done to the source."""

    data: bytes
    height: int
    width: int
    changes: tuple[str, ...]


class Rejected(Exception):
    """An image that is not stored; the message is the reason, one word of a small vocabulary."""


def curate(data: bytes, limits: Limits, *, orientation: int = 1) -> Curated:
    """Makes the stored form of an encoded image, or raises `Rejected` with the reason.

    Args:
        data: the encoded image.
        limits: what is kept.
        orientation: as EXIF numbers them, of an image without EXIF data.
    """
    if not data:
        raise Rejected("empty_image")
    try:
        return _curate(data, limits, orientation)
    except decode.TooManyPixels as error:
        raise Rejected("too_many_pixels") from error
    except Rejected:
        raise
    except Exception as error:  # on damaged or hostile bytes Pillow's parsers raise anything
        raise Rejected(_damage(data, error)) from error


def _curate(data: bytes, limits: Limits, otherwise: int) -> Curated:
    header = decode.open_header(data)
    stored = _stored_size(*header.size, limits)
    changes = _conversions(header)
    own = _orientation(header)
    changes += ["upright"] if (own or otherwise) > 1 else []
    pixels = _pixels(data, header, min(stored))
    # Asked again: Pillow's TIFF reader applies its own, and forgets it.
    orientation = _orientation(header) if own else otherwise
    if orientation > 1:
        pixels = np.asarray(Image.fromarray(pixels).transpose(_TRANSPOSE[orientation]))
    width, height = header.size[::-1] if orientation >= 5 else header.size
    size = stored if width == header.size[0] else stored[::-1]
    if size != (width, height):
        changes.append("enlarged" if size[0] > width else "downscaled")
        resized = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        pixels = np.asarray(resized)
    if not changes and data.endswith(_JPEG_END):
        return Curated(data, height, width, ())
    encoded = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), JPEG_QUALITY, "RGB", JPEG_SUBSAMPLING
    )
    return Curated(encoded, size[1], size[0], tuple(changes) or ("reencoded",))


def _damage(data: bytes, error: Exception) -> str:
    message = str(error).lower()
    cut_short = data.startswith(_JPEG_MAGIC) and not data.endswith(_JPEG_END)
    if cut_short or "premature end" in message or "truncated" in message:
        return "truncated"
    return "not_an_image" if isinstance(error, decode.NotAnImage) else "damaged"


def _orientation(header: Image.Image) -> int:
    """The EXIF orientation: 1 (upright) where it is nonsense, 0 where there is none."""
    try:
        orientation = header.getexif().get(_EXIF_ORIENTATION, 0)
    except Exception:  # Pillow's EXIF parser fails in many ways on damaged metadata
        return 1
    return orientation if orientation in (0, *_TRANSPOSE) else 1


def _stored_size(width: int, height: int, limits: Limits) -> tuple[int, int]:
    """(width, height) of the stored image; `Rejected` where no size within the limits keeps it."""
    short, long = min(width, height), max(width, height)
    if long * limits.min_side > short * limits.max_side:
        raise Rejected("extreme_aspect")
    if short * limits.max_enlarge < limits.min_side:
        raise Rejected("too_small")
    scale = min(max(1.0, limits.min_side / short), limits.max_side / long)
    if scale == 1.0:
        return width, height
    return _scaled(width, scale, limits), _scaled(height, scale, limits)


def _scaled(side: int, scale: float, limits: Limits) -> int:
    return min(max(round(side * scale), limits.min_side), limits.max_side)


def _conversions(header: Image.Image) -> list[str]:
    """What stands between the source and an 8-bit RGB JPEG, apart from its geometry."""
    changes = []
    if header.format != "JPEG":
        changes.append(f"from_{(header.format or 'unknown').lower()}")
    if getattr(header, "n_frames", 1) > 1:
        changes.append("first_frame")
    if header.mode.startswith("I"):
        changes.append("from_16bit")
    elif header.mode != "RGB":
        changes.append(f"from_{header.mode.lower()}")
    if header.has_transparency_data:
        changes.append("over_white")
    return changes


def _pixels(data: bytes, header: Image.Image, min_side: int) -> np.ndarray:
    """uint8 [h, w, 3], not yet upright; the short side is `min_side` or more."""
    if data.startswith(_JPEG_MAGIC):  # of any colours: Pillow lets some truncations pass
        return decode.decode_image(data, min_side=min_side)
    header.load()
    return np.asarray(_to_rgb(header))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise Rejected("unsupported_pixels")
        # Sensors put 10, 12 or 14 bits into 16: scale by the bits in use, not to near black.
        bits = max(int(values.max()).bit_length(), 8)
        gray = np.round(values * (255 / (2**bits - 1))).astype(np.uint8)
        return Image.fromarray(gray).convert("RGB")
    if image.mode == "F":
        raise Rejected("unsupported_pixels")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
