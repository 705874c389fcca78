# SPDX-License-Identifier: Apache-2.0
"""What both correspondences share: which features are compared, and as unit vectors."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from mtv_jax.core.passes import Features, Wants, wanted

WANTS = Wants(last_raw=True, tokens=True)
# By prefix of the numbers: the last block before the final norm, as in Probe3D's wrapper of SigLIP;
# and after it.
READ: Mapping[str, Callable[[Features], Any]] = {
    "": lambda features: wanted(features.last_raw),
    "normed_": lambda features: wanted(features.tokens),
}


def unit(vectors: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
    """Vectors of length 1; 0 stays 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
