# SPDX-License-Identifier: Apache-2.0
"""Digests of 64 bits, of keys, texts and images: those with equal ones are taken for the same.

Among 100 million different things two have equal ones by chance at 1 : 3700.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

_BYTES = 8


def of_bytes(data: bytes) -> int:
    """The digest of `data`."""
    return int.from_bytes(_digest(data), "little")


def of_each(items: Iterable[bytes]) -> np.ndarray:
    """Those of items: uint64 [n]."""
    return np.frombuffer(b"".join(map(_digest, items)), "<u8")


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_BYTES).digest()
