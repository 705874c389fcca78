# SPDX-License-Identifier: Apache-2.0
"""The random choices of a scene, in the words its makers use."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


class Vary:
    """A stream of random choices, fixed by its seeds."""

    def __init__(self, *seeds: int):
        """Starts the stream that belongs to `seeds`: equal seeds, equal choices."""
        self._rng = np.random.default_rng(seeds)

    def __call__(self, value: float, spread: float = 0.15) -> float:
        """`value` changed by up to +- `spread` of itself."""
        return value * self._rng.uniform(1 - spread, 1 + spread)

    def between(self, low: float, high: float) -> float:
        """A number of [low, high)."""
        return float(self._rng.uniform(low, high))

    def integer(self, low: int, high: int) -> int:
        """An integer of [low, high)."""
        return int(self._rng.integers(low, high))

    def chance(self, probability: float) -> bool:
        """True with `probability`."""
        return bool(self._rng.random() < probability)

    def pick(self, items: Sequence[Item]) -> Item:
        """One of `items`."""
        return items[int(self._rng.integers(len(items)))]

    def pick_several(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` different ones of `items`, in random order."""
        return [items[i] for i in self._rng.permutation(len(items))[:count]]
