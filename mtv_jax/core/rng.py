# SPDX-License-Identifier: Apache-2.0
"""Randomness as a pure function of (seed, stream position, name).

Positions travel as two uint32 words (`core/position.py`); keys fold in both.
"""

import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, UInt32


def advance(words: UInt32[Array, "2"], count: int) -> UInt32[Array, "2"]:
    """The position `count` samples later, carrying into the high word."""
    low = words[1] + jnp.uint32(count)
    carry = (low < words[1]).astype(jnp.uint32)
    return jnp.stack([words[0] + carry, low])


def position_keys(seed: int, positions: UInt32[Array, "b 2"]) -> Key[Array, " b"]:
    """One key per sample, the same on any topology."""
    base = jax.random.key(seed)

    def one(words: UInt32[Array, "2"]) -> Key[Array, ""]:
        return jax.random.fold_in(jax.random.fold_in(base, words[0]), words[1])

    return jax.vmap(one)(positions)


def named(keys: Key[Array, "*b"], name: str) -> Key[Array, "*b"]:
    """An independent stream per name: adding a consumer never disturbs another's draws."""
    salt = zlib.crc32(name.encode())
    flat = jax.vmap(lambda key: jax.random.fold_in(key, salt))(keys.reshape(-1))
    return flat.reshape(keys.shape)


def group_keys(keys: Key[Array, " b"], size: int) -> Key[Array, " g"]:
    """The key of each group of `size` consecutive positions: that of its first."""
    if keys.shape[0] % size:
        raise ValueError(f"{keys.shape[0]} samples do not divide into groups of {size}")
    return keys[::size]
