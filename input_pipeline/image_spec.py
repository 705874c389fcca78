# SPDX-License-Identifier: Apache-2.0
"""From a decoded image to what an image tower reads: one description, wherever images are read."""

import dataclasses
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Resample = Literal["bicubic", "bilinear"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """A squash to a square, then one linear map of values.

    Attributes:
        resample: kernel of the squash: Pillow's, antialiased, on uint8.
        low: what 0 becomes.
        high: what 255 becomes.
    """

    resample: Resample = "bicubic"
    low: float = -1.0
    high: float = 1.0

    def squash(
        self, image: UInt8[np.ndarray, "h w 3"], size: int
    ) -> UInt8[np.ndarray, "size size 3"]:
        """The image as a square of `size` pixels."""
        return self.resize(image, (size, size))

    def resize(
        self, image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "height width 3"]:
        """The image in (height, width) `size`."""
        kernel = Image.Resampling[self.resample.upper()]
        return np.asarray(Image.fromarray(image).resize(size[::-1], kernel))

    def pixels(self, images: Any) -> Any:
        """uint8 to float32 in [low, high]; numpy or jax arrays."""
        return images.astype(np.float32) / np.float32(255 / (self.high - self.low)) + self.low


SIGLIP_IMAGES = ImageSpec()
