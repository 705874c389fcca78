# SPDX-License-Identifier: Apache-2.0
"""From the boxes that a file has for an image to the regions that a store holds beside it."""

import dataclasses

import numpy as np

from input_pipeline.example import Value
from input_pipeline.tokenizer import canonicalize
from mtv_jax.core.fields import BOXES, PHRASES, SCORES
from tools.data.captions import clean_caption
from tools.data.depth_values import Rejected
from tools.data.region_files import Entry, Unit
from tools.data.verify import Findings

_ASPECT_TOLERANCE = 0.02
_ROUNDING = 1e-6  # of a side in float32


@dataclasses.dataclass(frozen=True)
class Limits:
    """Which regions are kept.

    Attributes:
        unit: what the coordinates are.
        min_side: least side of a clipped box, as a share of the image's.
        min_score: least score.
    """

    unit: Unit
    min_side: float
    min_score: float


def check_size(entry: Entry, image_size: tuple[int, int]) -> None:
    """Raises `Rejected` where the boxes refer to an image of another aspect, (height, width)."""
    (height, width), (image_height, image_width) = entry.size, image_size
    detail = (
        f"is {height:g}x{width:g}, the stored image {image_height}x{image_width} (height x width)"
    )
    if _same_aspect((height, width), image_size):
        return
    if _same_aspect((width, height), image_size):
        reason = "turned by a quarter: stored images are upright (EXIF applied), turn the boxes"
        raise Rejected(reason, detail)
    raise Rejected("another aspect than the stored image", detail)


def keep_regions(entry: Entry, limits: Limits, dropped: Findings) -> dict[str, Value]:
    """The columns of one row, highest score first; none where no region is left.

    Args:
        entry: what the file says.
        limits: which regions are kept.
        dropped: is told of the others.
    """
    height, width = entry.size if limits.unit == "pixels" else (1, 1)
    given = entry.boxes / (width, height, width, height)
    boxes = np.clip(given, 0, 1).astype(np.float32)
    phrases = [clean_caption(phrase).text for phrase in entry.phrases]
    kept: list[int] = []
    for region in np.argsort(-entry.scores, kind="stable"):
        fault = _box_fault(given[region], boxes[region], limits.min_side)
        if entry.scores[region] < limits.min_score:
            fault = "a score below --min_score"
        elif not 0 < entry.scores[region] <= 1:
            fault = "a score outside (0, 1]"
        elif not canonicalize(phrases[region]):
            fault = "a phrase that says nothing"
        elif not fault and len(kept) == BOXES.pad_to:
            fault = f"more than {BOXES.pad_to} in an image: the lowest scores"
        if fault:
            box = ", ".join(f"{number:g}" for number in entry.boxes[region])
            dropped.add(fault, f"{entry.key}: {entry.phrases[region]!r:.40} [{box}]")
        else:
            kept.append(int(region))
    if not kept:
        return {}
    return {
        BOXES.name: boxes[kept],
        PHRASES.name: [phrases[region] for region in kept],
        SCORES.name: entry.scores[kept].astype(np.float32),
    }


def _box_fault(given: np.ndarray, clipped: np.ndarray, min_side: float) -> str:
    if (given[2:] <= given[:2]).any():
        return "empty or inverted boxes"
    sides = clipped[2:] - clipped[:2]
    if (sides <= 0).any():
        return "boxes outside the image"
    return "a side below --min_side" if (sides < min_side - _ROUNDING).any() else ""


def _same_aspect(size: tuple[float, float], image_size: tuple[int, int]) -> bool:
    ratio = size[0] * image_size[1] / (size[1] * image_size[0])
    return abs(ratio - 1) <= _ASPECT_TOLERANCE
