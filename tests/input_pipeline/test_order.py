# SPDX-License-Identifier: Apache-2.0
"""Tests of input_pipeline.order: permutations, epochs, windows, mixtures."""

import collections
import itertools

import pytest

from input_pipeline.order import EpochOrder, Mixture, permute, unpermute
from mtv_jax.core.errors import UserError


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 100, 1000, 4097])
def test_permute_is_a_bijection_and_unpermute_its_inverse(size):
    image = [permute(i, size, 99) for i in range(size)]
    assert sorted(image) == list(range(size))
    assert [unpermute(i, size, 99) for i in image] == list(range(size))
    if size >= 100:
        assert image != [permute(i, size, 98) for i in range(size)]


def test_permute_spreads():
    """Neighbours land far apart: the mean step of a random permutation is a third of its size."""
    size = 10_000
    image = [permute(i, size, 5) for i in range(size)]
    steps = [abs(a - b) for a, b in itertools.pairwise(image)]
    assert 0.30 < sum(steps) / len(steps) / size < 0.37


@pytest.mark.parametrize("epoch", [0, 1, 2**33])
@pytest.mark.parametrize(
    ("rows", "block", "window"),
    [(103, 1, 1), (103, 10, 3), (100, 10, 3), (1003, 7, 5), (5, 10, 2), (64, 8, 100)],
)
def test_every_epoch_visits_every_row_once(rows, block, window, epoch):
    order = EpochOrder(rows=rows, seed=3, block=block, window=window)
    drawn = [order.row(epoch * rows + i) for i in range(rows)]
    assert sorted(drawn) == list(range(rows))
    other = [order.row((epoch + 1) * rows + i) for i in range(rows)]
    assert drawn != other


def test_a_window_reads_few_blocks():
    """What makes a bucket's reads large: one window's draws come from `window` blocks."""
    order = EpochOrder(rows=1000, seed=1, block=50, window=4)
    blocks = {order.row(i) // 50 for i in range(200)}
    assert len(blocks) == 4
    runs = [order.row(i) // 50 for i in range(200)]
    for block in blocks:
        places = [i for i, other in enumerate(runs) if other == block]
        assert places[-1] - places[0] > 100, "rows of the window's blocks are not mixed"


@pytest.mark.parametrize("position", [0, 2**31 - 1, 2**31, 2**32 + 7, 2**40])
def test_large_positions(position):
    order = EpochOrder(rows=1_000_003, seed=0, block=100, window=16)
    assert 0 <= order.row(position) < 1_000_003
    stream, index = Mixture.from_weights([0.7, 0.3]).locate(position)
    assert abs(index - position * (0.7, 0.3)[stream]) < 1000


def test_mixtures_are_exact_even_and_gapless():
    mixture = Mixture.from_weights([0.5, 0.3, 0.2])
    located = [mixture.locate(i) for i in range(2000)]
    assert collections.Counter(s for s, _ in located) == {0: 1000, 1: 600, 2: 400}
    for stream in range(3):
        assert [i for s, i in located if s == stream] == list(range((1000, 600, 400)[stream]))
    for start in range(0, 1990, 10):
        window = collections.Counter(s for s, _ in located[start : start + 10])
        assert 4 <= window[0] <= 6 and 2 <= window[1] <= 4, "not evenly spread"


def test_rare_streams_are_not_lost_and_bad_weights_refused():
    assert Mixture.from_weights([1.0, 1e-6]).counts[1] == 1
    assert Mixture.from_weights([2.0, 2.0, 0.0]).counts == (1, 1, 0)
    for weights in ([], [0.0], [-1.0, 2.0]):
        with pytest.raises(UserError, match="with a positive sum"):
            Mixture.from_weights(weights)
