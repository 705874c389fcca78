# SPDX-License-Identifier: Apache-2.0
"""Tests of mtv_jax.core.rng and core.position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core import rng
from mtv_jax.core.position import join_position, split_position

LARGE = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 3_200_000_000, 2**40 + 5]


@pytest.mark.parametrize("position", LARGE)
def test_words_round_trip(position):
    assert int(join_position(split_position(position))) == position


@pytest.mark.parametrize("position", LARGE)
def test_advance_carries(position):
    words = rng.advance(jnp.asarray(split_position(position)), 4096)
    assert int(join_position(np.asarray(words))) == position + 4096


def test_keys_differ_by_both_words_and_by_name():
    words = split_position(np.asarray([5, 2**32 + 5, 2**33 + 5, 6]))
    keys = rng.position_keys(0, jnp.asarray(words))
    data = np.asarray(jax.random.key_data(keys))
    assert len(np.unique(data, axis=0)) == 4
    one, other = rng.named(keys, "a"), rng.named(keys, "b")
    assert not np.array_equal(jax.random.key_data(one), jax.random.key_data(other))
    assert not np.array_equal(data, jax.random.key_data(rng.position_keys(1, jnp.asarray(words))))


def test_a_sample_has_its_key_wherever_it_lies():
    positions = np.arange(100, 108)
    keys = rng.position_keys(3, jnp.asarray(split_position(positions)))
    lone = rng.position_keys(3, jnp.asarray(split_position(positions[5:6])))
    np.testing.assert_array_equal(jax.random.key_data(keys[5:6]), jax.random.key_data(lone))


def test_groups_are_keyed_by_their_first():
    keys = rng.position_keys(0, jnp.asarray(split_position(np.arange(12))))
    grouped = rng.group_keys(keys, 4)
    np.testing.assert_array_equal(
        jax.random.key_data(grouped), jax.random.key_data(keys)[np.asarray([0, 4, 8])]
    )
    with pytest.raises(ValueError, match="groups of 5"):
        rng.group_keys(keys, 5)
