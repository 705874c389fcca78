# SPDX-License-Identifier: Apache-2.0
"""Bilinear resizing as a matrix for each axis."""

import functools

import numpy as np
from jaxtyping import Float


@functools.lru_cache(maxsize=64)
def bilinear_weights(size_in: int, size_out: int) -> Float[np.ndarray, "size_out size_in"]:
    """Pixel centres aligned, borders repeated, no antialiasing, as PyTorch interpolates; float32.

    Rows sum to one, so it commutes with any linear map of channels.
    """
    places = np.clip((np.arange(size_out) + 0.5) * size_in / size_out - 0.5, 0, size_in - 1)
    low = np.minimum(places.astype(np.int64), max(size_in - 2, 0))
    weights = np.zeros((size_out, size_in), np.float32)
    weights[np.arange(size_out), low] = 1 - (places - low)
    if size_in > 1:
        weights[np.arange(size_out), low + 1] = places - low
    return weights
