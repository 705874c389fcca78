# SPDX-License-Identifier: Apache-2.0
"""How an image and its map are cut for the training of a probe.

Probes see the augmentations of the published protocols, on images of their own sizes. They are
drawn on the host, where sizes may differ, from a generator that the caller seeds with the sample's
position in the stream: what is drawn depends on nothing else.
"""

import dataclasses
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from input_pipeline.image_spec import ImageSpec
from mtv_jax.core.config import at_least

GRAY = 127  # near 0 in [-1, 1], where published code pads after normalising
_MOST_STRETCHED = 4.0  # the long side, in short sides of the crop
_TRIES = 10  # to find a crop that is not all one class


class Cut(NamedTuple):
    """A crop, uint8 and whatever the map is, of the same height and width."""

    image: UInt8[np.ndarray, "h w 3"]
    target: Shaped[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crops:
    """Resize, turn, crop, flip, recolour, fill up with gray, in this order.

    Attributes:
        height: of a crop, in pixels.
        width: of a crop.
        resize: "keep" the image's size, bring the "short" side to the crop's short side times a
            draw from `ratio`, or "squash" it to the crop.
        ratio: range of that draw.
        degrees: half of the images are turned by up to this much, either way.
        flip: probability of a mirror image.
        colour: "none"; "distort" is mmsegmentation's brightness, contrast, saturation and hue;
            "tint" is gamma, brightness and a factor for each colour, as BTS has them.
        one_class: most of a crop that one class may fill, for maps of classes; 1 for any.
    """

    height: int = at_least(1)
    width: int = at_least(1)
    resize: Literal["keep", "short", "squash"] = "keep"
    ratio: tuple[float, float] = (1.0, 1.0)
    degrees: float = at_least(0.0, 0.0)
    flip: float = 0.5
    colour: Literal["none", "distort", "tint"] = "none"
    one_class: float = 1.0

    def cut(self, rng: np.random.Generator, spec: ImageSpec, whole: Cut, *, outside: float) -> Cut:
        """One crop of an image and its map.

        Args:
            rng: seeded for this sample.
            spec: whose kernel resizes the image; maps take the nearest pixel.
            whole: both of any size; the map is brought to the image's if it differs.
            outside: the map's value where a turn or a crop reaches beyond the image; what has it
                counts as no class.
        """
        image, target = self._resized(rng, spec, whole)
        if rng.random() < 0.5 and self.degrees:
            image, target = _turned(image, target, rng.uniform(-1, 1) * self.degrees, outside)
        image, target = self._cropped(rng, image, target, outside)
        if rng.random() < self.flip:
            image, target = image[:, ::-1], target[:, ::-1]
        recolour = {"none": _as_it_is, "distort": _distorted, "tint": _tinted}[self.colour]
        return Cut(self._padded(recolour(rng, image), GRAY), self._padded(target, outside))

    def _resized(self, rng: np.random.Generator, spec: ImageSpec, whole: Cut) -> Cut:
        height, width = whole.image.shape[:2]
        if self.resize == "squash":
            height, width = self.height, self.width
        elif self.resize == "short":
            factor = min(self.height, self.width) * rng.uniform(*self.ratio)
            height, width = short_side((height, width), factor)
        target = cv2.resize(whole.target, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return Cut(spec.resize(whole.image, (height, width)), target)

    def _cropped(
        self, rng: np.random.Generator, image: np.ndarray, target: np.ndarray, outside: float
    ) -> Cut:
        room = np.maximum(np.asarray(target.shape) - (self.height, self.width), 0)
        for _ in range(_TRIES):
            top, left = rng.integers(0, room + 1)
            box = slice(top, top + self.height), slice(left, left + self.width)
            if self.one_class >= 1 or _share_of_one(target[box], outside) < self.one_class:
                break
        return Cut(image[box], target[box])

    def _padded(self, array: np.ndarray, value: float) -> np.ndarray:
        """Filled up below and at the right."""
        missing = [(0, self.height - array.shape[0]), (0, self.width - array.shape[1])]
        padding = missing + [(0, 0)] * (array.ndim - 2)
        return np.pad(array, padding, constant_values=value)


def short_side(size: tuple[int, int], short: float) -> tuple[int, int]:
    """(height, width) with that short side and the aspect of `size`, the long one within limits."""
    factor = min(short / min(size), _MOST_STRETCHED * short / max(size))
    height, width = (max(round(side * factor), 1) for side in size)
    return height, width


def _share_of_one(target: np.ndarray, outside: float) -> float:
    """Of the known pixels, those of the most frequent class; 1 where none is known."""
    classes = target[target != outside]
    return np.bincount(classes).max() / classes.size if classes.size else 1.0


def _turned(image: np.ndarray, target: np.ndarray, degrees: float, outside: float) -> Cut:
    height, width = target.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    gray = (GRAY,) * 3
    return Cut(
        cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=gray),
        cv2.warpAffine(
            target, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=(outside,)
        ),
    )


def _as_it_is(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    del rng
    return image


def _distorted(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Each of four with probability a half; contrast before or after saturation and hue."""
    x = image.astype(np.float32)
    chance = rng.random(5) < 0.5
    brightness, contrast = rng.uniform(-32, 32), rng.uniform(0.5, 1.5)
    saturation, hue = rng.uniform(0.5, 1.5), rng.uniform(-36, 36)
    x += brightness * chance[0]
    if chance[1] and chance[2]:
        x *= contrast
    hsv = cv2.cvtColor(np.clip(x, 0, 255) / 255, cv2.COLOR_RGB2HSV)
    if chance[3]:
        hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
    if chance[4]:
        hsv[..., 0] = (hsv[..., 0] + hue) % 360
    x = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
    if chance[1] and not chance[2]:
        x *= contrast
    return np.clip(x, 0, 255).round().astype(np.uint8)


def _tinted(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Half of the images."""
    applies = rng.random() < 0.5
    gamma, brightness = rng.uniform(0.9, 1.1), rng.uniform(0.75, 1.25)
    factors = brightness * rng.uniform(0.9, 1.1, 3)
    if not applies:
        return image
    x = (image / np.float32(255)) ** np.float32(gamma) * factors.astype(np.float32)
    return (np.clip(x, 0, 1) * 255).round().astype(np.uint8)
