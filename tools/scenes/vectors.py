# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on vectors kept as arrays [3, ...], components first, so that each is contiguous.

Products over pixels are spelled out, not left to a BLAS: that may round differently with the number
of its threads, and a scene must not depend on them.
"""

import numpy as np

Array = np.ndarray


def dot(left: Array, right: Array) -> Array:
    """Scalar products [...] of vectors [3, ...]."""
    return left[0] * right[0] + left[1] * right[1] + left[2] * right[2]


def norm(vectors: Array) -> Array:
    """Lengths [...] of vectors [3, ...]."""
    return np.sqrt(dot(vectors, vectors))


def transform(matrix: Array, points: Array) -> Array:
    """The linear map [k, 3] or affine map [k, 4] applied to points [3, ...]: [k, ...]."""
    rows = [dot(row, points) for row in matrix]
    if matrix.shape[1] == 4:
        rows = [row + offset for row, offset in zip(rows, matrix[:, 3], strict=True)]
    return np.stack(rows)
