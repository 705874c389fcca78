# SPDX-License-Identifier: Apache-2.0
"""Which boxes of a detector are kept (MTV section 2.1, and what it leaves open), and why not.

A box goes when it is too small or too large, when it overlaps a better one, or when the caption
does not speak of its phrase and its score is not good enough without that.
"""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from input_pipeline.tokenizer import canonicalize
from mtv_jax.core.config import at_least

_PLURALS = ("es", "s")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxLimits:
    """What is asked of a box.

    Attributes:
        min_score: least score.
        min_score_unmentioned: least score where the caption does not mention the phrase.
        max_overlap: intersection over union with a better box of the same phrase.
        max_overlap_unlike: with a better box of another phrase.
        max_boxes: kept of an image, the best ones.
        min_side: least side, as a share of the image's.
        max_area: most area, as a share of the image's.
    """

    min_score: float = at_least(0.0, 0.2)
    min_score_unmentioned: float = at_least(0.0, 0.2)
    max_overlap: float = at_least(0.0, 0.7)
    max_overlap_unlike: float = at_least(0.0, 0.7)
    max_boxes: int = at_least(1, 20)
    min_side: float = at_least(0.0, 0.02)
    max_area: float = at_least(0.0, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detections:
    """The boxes that a detector has for an image, in any order.

    Attributes:
        boxes: xyxy in [0, 1].
        scores: of each.
        phrases: of each.
        mentioned: whether the caption speaks of the phrase.
    """

    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    phrases: Sequence[str]
    mentioned: Bool[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Kept:
    """Rows of the boxes that stay, best first, and how many went, by reason.

    Boxes below `min_score` are no labels, and are not counted.
    """

    rows: list[int]
    dropped: Mapping[str, int]


def keep(found: Detections, limits: BoxLimits) -> Kept:
    """Applies the limits to one image."""
    order = np.argsort(-found.scores, kind="stable")
    order = order[found.scores[order] >= limits.min_score]
    dropped: collections.Counter[str] = collections.Counter()
    kept: list[int] = []
    for row in order.tolist():
        fault = _own_fault(found, row, limits) or _overlap_fault(found, row, kept, limits)
        if not fault and len(kept) == limits.max_boxes:
            fault = "more than max_boxes in an image"
        if fault:
            dropped[fault] += 1
        else:
            kept.append(row)
    return Kept(kept, dict(sorted(dropped.items())))


def _own_fault(found: Detections, row: int, limits: BoxLimits) -> str:
    sides = found.boxes[row, 2:] - found.boxes[row, :2]
    if sides.min() <= 0 or sides.min() < limits.min_side:
        return "a side below min_side"
    if sides.prod() > limits.max_area:
        return "an area above max_area"
    if not found.mentioned[row] and found.scores[row] < limits.min_score_unmentioned:
        return "not in the caption, and a score below min_score_unmentioned"
    return ""


def _overlap_fault(found: Detections, row: int, kept: Sequence[int], limits: BoxLimits) -> str:
    """What hides a box: one that is better, and not hidden itself."""
    if not kept:
        return ""
    shares = overlaps(found.boxes[row], found.boxes[kept])
    alike = np.asarray([found.phrases[other] == found.phrases[row] for other in kept])
    if (shares[alike] > limits.max_overlap).any():
        return "a better box of the same phrase"
    if (shares[~alike] > limits.max_overlap_unlike).any():
        return "a better box of another phrase"
    return ""


def overlaps(
    box: Float[np.ndarray, "4"], others: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, " n"]:
    """Intersection over union."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    inner = np.clip(high - low, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return inner / np.maximum(areas - inner, 1e-12)


def mentions(caption: str, phrase: str) -> bool:
    """Whether every word of a phrase is in the caption, in any order, singular or plural."""
    there, words = _forms_of(caption), canonicalize(phrase).split()
    return bool(words) and all(_forms(word) & there for word in words)


@functools.lru_cache(maxsize=1024)
def _forms_of(text: str) -> frozenset[str]:
    return frozenset().union(*map(_forms, canonicalize(text.replace("’", "'")).split()))


def _forms(word: str) -> frozenset[str]:
    """A word, and what it may be the plural of."""
    endings = [end for end in _PLURALS if word.endswith(end) and not word.endswith("ss")]
    return frozenset([word, *(word.removesuffix(end) for end in endings if len(word) > 3)])
