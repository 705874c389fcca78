# SPDX-License-Identifier: Apache-2.0
"""Experts that write tags: words for other experts to look for. Training does not read them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import Field
from tools.label.base import Expert, Labels

_MOST = 64
TAGS = Field(name="tags", shape="r", dtype="str", pad_to=_MOST, encode="vocabulary")
TAG_SCORES = Field(name="tag_scores", shape="r", pad_to=_MOST, unit="probability")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tagger(Expert):
    """Tags of every image, with their probabilities.

    Attributes:
        max_tags: of an image, the best ones.
    """

    sidecar: str = "tags_v1"
    max_tags: int = at_least(1, 32)

    def __post_init__(self) -> None:
        if self.max_tags > _MOST:
            raise UserError(f"experts.{self.name}.max_tags is at most {_MOST}")

    def emits(self) -> tuple[Field, ...]:
        return (TAGS, TAG_SCORES)

    def best(self, names: Sequence[str], scores: Float[np.ndarray, " n"]) -> Labels:
        """The columns of one image, the most probable first; equal ones in the order given."""
        order = np.argsort(-scores, kind="stable")[: self.max_tags]
        return {
            TAGS.name: [names[index] for index in order],
            TAG_SCORES.name: scores[order].astype(np.float32),
        }
