# SPDX-License-Identifier: Apache-2.0
"""Stream positions: 64-bit counts of samples drawn since the start of a run.

JAX runs without 64-bit integers, so a position travels as two uint32 words (high, low).
"""

import numpy as np


def split_position(position: np.ndarray | int) -> np.ndarray:
    """[...] int64 positions as [..., 2] uint32 words (high, low)."""
    position = np.asarray(position, np.int64)
    return np.stack([position >> 32, position & 0xFFFFFFFF], axis=-1).astype(np.uint32)


def join_position(words: np.ndarray) -> np.ndarray:
    """[..., 2] uint32 words (high, low) as [...] int64 positions."""
    words = np.asarray(words, np.uint32).astype(np.int64)
    return np.asarray((words[..., 0] << 32) | words[..., 1])
