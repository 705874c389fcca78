# SPDX-License-Identifier: Apache-2.0
"""The training order: a pure function from stream position to (store, row).

Each store is an infinite stream of epochs; every epoch is a two-level permutation: blocks of
consecutive rows are shuffled over the store, rows are shuffled inside a window of blocks. Block 1
is a full shuffle (local disk); blocks of hundreds turn a bucket's small reads into large ones. A
mixture interleaves the streams in a fixed, evenly spread pattern. Everything is O(1) in time and
memory for any position of 64 bits, so resuming is arithmetic, not replay.
"""

import dataclasses
import functools
from collections.abc import Sequence

from mtv_jax.core.errors import UserError

_MASK64 = (1 << 64) - 1
_ROUNDS = 4


def mix64(value: int) -> int:
    """SplitMix64's finaliser: a bijection on 64-bit integers that scrambles every bit."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def permute(index: int, size: int, key: int) -> int:
    """Where a keyed pseudo-random permutation of range(size) sends `index`.

    A Feistel network on the next even number of bits, walked until it lands inside the range.
    """
    half, mask = _halves(size)
    while True:
        left, right = index >> half, index & mask
        for round_ in range(_ROUNDS):
            left, right = right, left ^ (mix64(key ^ (right << 8 | round_)) & mask)
        index = left << half | right
        if index < size:
            return index


def unpermute(index: int, size: int, key: int) -> int:
    """The inverse of `permute`."""
    half, mask = _halves(size)
    while True:
        left, right = index >> half, index & mask
        for round_ in reversed(range(_ROUNDS)):
            left, right = right ^ (mix64(key ^ (left << 8 | round_)) & mask), left
        index = left << half | right
        if index < size:
            return index


def _halves(size: int) -> tuple[int, int]:
    half = max((size - 1).bit_length() + 1 >> 1, 1)
    return half, (1 << half) - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochOrder:
    """The stream of rows of one store.

    Attributes:
        rows: rows of the store (or of its selection).
        seed: key of the permutations; every epoch draws its own.
        block: consecutive rows that travel together.
        window: blocks whose rows are shuffled among each other.
    """

    rows: int
    seed: int
    block: int = 1
    window: int = 1

    def row(self, index: int) -> int:
        """Row of the `index`-th draw of the stream."""
        epoch, place = divmod(index, self.rows)
        key = mix64(self.seed ^ mix64(epoch))
        blocks = -(-self.rows // self.block)
        if blocks == self.rows or blocks == 1:
            return permute(place, self.rows, key)
        return self._row_in_blocks(place, blocks, key)

    def _row_in_blocks(self, place: int, blocks: int, key: int) -> int:
        short_slot = unpermute(blocks - 1, blocks, key)  # where the last, shorter block landed
        window_rows = self.window * self.block
        missing = blocks * self.block - self.rows

        def first_place(slot: int) -> int:
            return slot * self.block - (missing if slot > short_slot else 0)

        window = place // window_rows
        while place >= first_place(min((window + 1) * self.window, blocks)):
            window += 1
        start = first_place(window * self.window)
        end = first_place(min((window + 1) * self.window, blocks))
        place = start + permute(place - start, end - start, mix64(key ^ mix64(window + 1)))
        slot = place // self.block
        if place >= first_place(slot + 1):
            slot += 1
        return permute(slot, blocks, key) * self.block + place - first_place(slot)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """An evenly spread, periodic interleaving of streams.

    Attributes:
        counts: draws of each stream in one period.
    """

    counts: tuple[int, ...]

    @classmethod
    def from_weights(cls, weights: Sequence[float], period: int = 1000) -> "Mixture":
        """Weights rounded to thousandths by largest remainder; each positive one keeps a draw."""
        if not weights or min(weights) < 0 or sum(weights) <= 0:
            raise UserError(
                f"input.stores.*.weight {list(weights)} must be at least 0 with a positive sum"
            )
        if len({w for w in weights if w > 0}) == 1:
            return cls(tuple(int(w > 0) for w in weights))
        shares = [w / sum(weights) * period for w in weights]
        counts = [max(int(share), int(share > 0)) for share in shares]
        by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i])
        for i in by_remainder[: max(period - sum(counts), 0)]:
            counts[i] += 1
        return cls(tuple(counts))

    @functools.cached_property
    def pattern(self) -> tuple[tuple[int, int], ...]:
        """(stream, its draws earlier in the period) for each place of the period."""
        places = [
            ((draw + 0.5) / count, stream, draw)
            for stream, count in enumerate(self.counts)
            for draw in range(count)
        ]
        return tuple((stream, draw) for _, stream, draw in sorted(places))

    def locate(self, position: int) -> tuple[int, int]:
        """(stream, index into that stream) of a position."""
        period, place = divmod(position, len(self.pattern))
        stream, draw = self.pattern[place]
        return stream, period * self.counts[stream] + draw
