# SPDX-License-Identifier: Apache-2.0
"""Sliding windows over an image, and their logits put together at its own size.

Bilinear resizing of a window, the mean where windows overlap and the resizing to the original size
are linear and act on rows and columns apart. So one matrix for rows and one for columns take the
tokens of all windows to the pixels: nothing is ever held at the size in between.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from input_pipeline.crops import GRAY, short_side
from mtv_jax.evaluators.base_resample import bilinear_weights

_BAND = 64  # rows of pixels whose logits are in memory at a time


@dataclasses.dataclass(frozen=True)
class Windows:
    """Square windows over an image whose short side has been brought to theirs.

    Attributes:
        size: (height, width) of the resized image.
        side: of a window.
        tops: first rows.
        lefts: first columns.
    """

    size: tuple[int, int]
    side: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @classmethod
    def over(cls, shape: tuple[int, int], side: int, stride: int) -> "Windows":
        """For an image of (height, width) `shape`; the last windows end at the border."""
        size = short_side(shape, side)
        tops, lefts = (_starts(length, side, stride) for length in size)
        return cls(size, side, tops, lefts)

    @property
    def count(self) -> int:
        """Windows, row by row."""
        return len(self.tops) * len(self.lefts)

    def cut(self, resized: UInt8[np.ndarray, "h w 3"], index: int) -> UInt8[np.ndarray, "s s 3"]:
        """One window of the resized image; gray where a very long image is too narrow for it."""
        row, column = divmod(index, len(self.lefts))
        top, left = self.tops[row], self.lefts[column]
        window = resized[top : top + self.side, left : left + self.side]
        missing = [(0, self.side - length) for length in window.shape[:2]]
        return np.pad(window, [*missing, (0, 0)], constant_values=GRAY)

    def classes(
        self, logits: Float[np.ndarray, "n h w c"], shape: tuple[int, int]
    ) -> Int64[np.ndarray, "height width"]:
        """The most likely class of every pixel of the original (height, width) `shape`."""
        grid, channels = logits.shape[1], logits.shape[-1]
        mosaic = logits.reshape(len(self.tops), len(self.lefts), grid, grid, channels)
        mosaic = mosaic.transpose(0, 2, 1, 3, 4).reshape(len(self.tops) * grid, -1, channels)
        rows = self._weights(self.tops, grid, self.size[0], shape[0])
        columns = self._weights(self.lefts, grid, self.size[1], shape[1])
        wide = (columns @ mosaic).reshape(len(mosaic), -1)
        bands = [
            (rows[first : first + _BAND] @ wide).reshape(-1, shape[1], channels).argmax(axis=-1)
            for first in range(0, shape[0], _BAND)
        ]
        return np.concatenate(bands)

    def _weights(
        self, starts: tuple[int, ...], grid: int, length: int, original: int
    ) -> Float32[np.ndarray, "original tokens"]:
        """From the tokens of all windows along an axis to its original pixels."""
        up = bilinear_weights(grid, self.side)
        placed = np.zeros((length, len(starts), grid), np.float32)
        for index, start in enumerate(starts):
            inside = min(self.side, length - start)
            placed[start : start + inside, index] = up[:inside]
        covering = (placed.sum(axis=-1) > 0).sum(axis=-1, dtype=np.float32)
        means = placed.reshape(length, -1) / covering[:, None]
        return bilinear_weights(length, original) @ means


def _starts(length: int, side: int, stride: int) -> tuple[int, ...]:
    steps = -(-max(length - side, 0) // stride) + 1
    return tuple(max(min(step * stride, length - side), 0) for step in range(steps))
