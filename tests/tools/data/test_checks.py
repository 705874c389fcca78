# SPDX-License-Identifier: Apache-2.0
"""Columns against their fields."""

import numpy as np
import pytest

from input_pipeline import decode, example
from mtv_jax.core.fields import BOXES, DEPTH, PHRASES, SCORES, Field
from tools.data import checks

_POINTS = Field(name="points", shape="p 2", geometry="points", pad_to=4)
_COUNT = Field(name="count", dtype="uint8")
_FIELDS = (BOXES, PHRASES, SCORES, _POINTS, _COUNT, DEPTH)
_SOUND = {
    "boxes": np.array([[0, 0, 0.5, 0.5], [0.25, 0.5, 1, 1]]),
    "phrases": ["a cat", "a dog"],
    "scores": [0.5, 1.0],
    "points": [0.0, 1.0],
    "count": 2,
    "depth": decode.encode_png16(np.full((20, 24), 1000, np.uint16)),
}


def _faults(columns):
    return checks.record_faults(_FIELDS, example.decode(example.encode(columns)))


def test_sound_columns_and_none_at_all():
    assert _faults(_SOUND) == _faults({}) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"boxes": [0.1, 0.2, 0.3, 1.01] * 2}, "boxes leaves [0, 1]"),
        ({"boxes": [-0.1, 0.2, 0.3, 0.9] * 2}, "boxes leaves [0, 1]"),
        ({"boxes": [0.3, 0.2, 0.3, 0.9] * 2}, "boxes has an empty box"),
        ({"boxes": [0.1, 0.9, 0.3, 0.2] * 2}, "boxes has an empty box"),
        ({"boxes": [0.1, float("nan"), 0.3, 0.2] * 2}, "boxes is not finite"),
        ({"boxes": [0.1, 0.2, 0.3]}, "boxes has length 3, not a multiple of 4"),
        (
            {"boxes": [0.1, 0.2, 0.3, 0.4]},
            "lengths differ: {'boxes': 1, 'phrases': 2, 'scores': 2}",
        ),
        ({"boxes": [0, 0, 1, 1] * 2}, "boxes holds integers, not floats"),
        ({"boxes": [b"0"] * 8}, "boxes holds bytes, not numbers"),
        ({"points": [0.5, 1.5]}, "points leaves [0, 1]"),
        ({"phrases": ["a cat", "<b>dog</b>"]}, "phrases is not clean text"),
        ({"phrases": ["a cat", ""]}, "phrases is not clean text"),
        ({"phrases": ["a cat", b"\xff"]}, "phrases is not UTF-8"),
        ({"phrases": [1, 2]}, "phrases holds numbers, not bytes"),
        ({"count": 256}, "count overflows its type"),
        ({"count": 1.0}, "count holds floats, not integers"),
        ({"count": [1, 2]}, "count is 2 numbers, not one"),
        ({"count": []}, "count is empty"),
        ({"depth": [b"", b""]}, "depth is not one image"),
        ({"masks": 1}, "masks is not in the manifest"),
    ],
)
def test_columns_against_their_fields(changes, fault):
    assert _faults(_SOUND | changes) == [fault]


@pytest.mark.parametrize(
    ("size", "exact", "fault"),
    [
        ((40, 48), True, ""),
        ((20, 24), True, "is 20x24, the record says 40x48"),
        ((20, 24), False, ""),
        ((21, 24), False, ""),  # a pixel of rounding
        ((22, 24), False, "is 22x24, the record says 40x48"),
        ((24, 20), False, "is 24x20, the record says 40x48"),
    ],
)
def test_rasters_lie_over_their_image(size, exact, fault):
    assert checks.size_fault(size, (40, 48), exact=exact) == fault
