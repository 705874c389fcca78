# SPDX-License-Identifier: Apache-2.0
"""The phrases of a mixture: what the indices in a batch stand for."""

import dataclasses
import functools
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np

from input_pipeline.store import Store
from input_pipeline.tokenizer import Tokenizer, canonicalize

UNKNOWN = -1


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Distinct phrases in a fixed order, which depends on nothing but their set.

    Attributes:
        phrases: canonical, sorted, none empty, whatever spellings were given. A phrase's place is
            its index, so every process and every resumed run has the same.
    """

    phrases: tuple[str, ...]

    def __post_init__(self) -> None:
        canonical = {canonicalize(phrase) for phrase in self.phrases}
        object.__setattr__(self, "phrases", tuple(sorted(canonical - {""})))

    def __getstate__(self) -> dict[str, Any]:  # every process makes its own index
        return {"phrases": self.phrases}

    @classmethod
    def of(cls, stores: Iterable[Store], column: str) -> "Vocabulary":
        """The phrases that the stores with this column open have together.

        Raises:
            StoreError: `column` holds no phrases, or a store's list of them cannot be read.
        """
        holding = (store for store in stores if column in store.fields)
        return cls(tuple({phrase for store in holding for phrase in store.vocabulary(column)}))

    def __len__(self) -> int:
        return len(self.phrases)

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {phrase: index for index, phrase in enumerate(self.phrases)}

    def encode(self, text: str) -> int:
        """Index of a phrase in any spelling; UNKNOWN when it is not here or says nothing."""
        return self._index.get(canonicalize(text), UNKNOWN)

    def ids(self, tokenizer: Tokenizer) -> np.ndarray:
        """Token ids of the phrases: int32 [u t], t of `tokenizer`; warns of those it cuts."""
        ids = np.empty((len(self), tokenizer.length), np.int32)
        for row, phrase in zip(ids, self.phrases, strict=True):
            row[:] = tokenizer.encode(phrase)
        cut = [phrase for phrase in self.phrases if not tokenizer.fits(phrase)]
        if cut:
            logging.warning(
                "%d of %d phrases do not fit into %d ids and are cut; the first: %r",
                *(len(cut), len(self), tokenizer.length, cut[0]),
            )
        return ids
