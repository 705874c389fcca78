# SPDX-License-Identifier: Apache-2.0
"""What both correspondences share: which features are compared."""

from collections.abc import Callable, Mapping
from typing import Any

from mtv_jax.core.passes import Features, Wants, wanted

WANTS = Wants(last_raw=True, tokens=True)
# By prefix of the numbers: the last block before the final norm, as in Probe3D's wrapper of SigLIP;
# and after it.
READ: Mapping[str, Callable[[Features], Any]] = {
    "": lambda features: wanted(features.last_raw),
    "normed_": lambda features: wanted(features.tokens),
}
