# SPDX-License-Identifier: Apache-2.0
"""Experts that write tags: words for other experts to look for. Training does not read them.

Every kind of tagger has columns of its own, so a store may hold several: `ram_tags`,
`siglip_tags`, `caption_tags`. What ends in `_tags` is a column of tags.
"""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from input_pipeline.example import Column, Value
from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import Field
from tools.label.base import Expert

_MOST = 64
_SUFFIX = "_tags"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tagger(Expert):
    """Tags of every image.

    Attributes:
        max_tags: of an image, the best ones.
    """

    max_tags: int = at_least(1, 32)

    kind: ClassVar[str]  # begins the names of its columns

    def __post_init__(self) -> None:
        if self.max_tags > _MOST:
            raise UserError(f"experts.{self.name}.max_tags is at most {_MOST}")

    def emits(self) -> tuple[Field, ...]:
        return (self.tags, self.tag_scores)

    @property
    def tags(self) -> Field:
        """The column of tags, best first."""
        name = f"{self.kind}{_SUFFIX}"
        return Field(name=name, shape="r", dtype="str", pad_to=_MOST)

    @property
    def tag_scores(self) -> Field:
        """The column of their probabilities."""
        return Field(name=f"{self.kind}_tag_scores", shape="r", pad_to=_MOST, unit="probability")

    def best(self, names: Sequence[str], scores: Float[np.ndarray, " n"]) -> dict[str, Value]:
        """The columns of one image, the most probable first; equal ones in the order given."""
        order = np.argsort(-scores, kind="stable")[: self.max_tags]
        return {
            self.tags.name: [names[index] for index in order],
            self.tag_scores.name: scores[order].astype(np.float32),
        }


def tag_columns(columns: Collection[str]) -> tuple[str, ...]:
    """Those that hold tags."""
    return tuple(sorted(name for name in columns if name.endswith(_SUFFIX)))


def merged_tags(columns: Mapping[str, Column], names: Sequence[str], most: int) -> list[str]:
    """Tags of an image by all its taggers in turn, each tag once, at most `most`."""
    by_tagger = [[bytes(tag).decode() for tag in columns.get(name, ())] for name in names]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_tagger))
    first: dict[str, str] = {}
    for tag in turns:
        if tag is not None:
            first.setdefault(tag.lower(), tag)
    return list(first.values())[:most]
