# SPDX-License-Identifier: Apache-2.0
"""How an image lay before a downloader compressed it anew and lost its EXIF data.

img2dataset does not turn the images that it makes smaller, writes them without EXIF data, and keeps
what there was as JSON, in the words of ExifRead, in the `exif` of a sample's metadata.
"""

import json
from collections.abc import Mapping
from typing import Any

COLUMN = "exif"
_TAG = "Image Orientation"
_WORDS = {
    "Mirrored horizontal": 2,
    "Rotated 180": 3,
    "Mirrored vertical": 4,
    "Mirrored horizontal then rotated 90 CCW": 5,
    "Rotated 90 CW": 6,
    "Mirrored horizontal then rotated 90 CW": 7,
    "Rotated 90 CCW": 8,
}


def from_metadata(values: Mapping[str, Any]) -> int:
    """The EXIF orientation that metadata tell of, 1 (upright) where they tell nothing."""
    try:
        return _WORDS.get(json.loads(values.get(COLUMN) or b"{}")[_TAG], 1)
    except (ValueError, LookupError, TypeError, RecursionError):
        return 1
