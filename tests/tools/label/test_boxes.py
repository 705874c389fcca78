# SPDX-License-Identifier: Apache-2.0
"""Which boxes of a detector stay, and under what the others are counted."""

import numpy as np
import pytest

from tools.label.boxes import BoxLimits, Detections, keep, mentions, overlaps

OTHER = "a better box of another phrase"
SAME = "a better box of the same phrase"
HALVES = [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]


def found(boxes, scores, phrases=None, mentioned=None) -> Detections:
    count = len(boxes)
    return Detections(
        boxes=np.asarray(boxes, np.float32),
        scores=np.asarray(scores, np.float32),
        phrases=phrases or ["dog"] * count,
        mentioned=np.asarray(mentioned or [True] * count),
    )


def kept(detections, **limits):
    result = keep(detections, BoxLimits(**limits))
    return result.rows, result.dropped


def test_the_best_come_first_and_low_scores_are_no_labels():
    assert kept(found([*HALVES, HALVES[0]], [0.3, 0.9, 0.1])) == ([1, 0], {})
    assert kept(found(HALVES, [0.2, 0.2])) == ([0, 1], {}), "equal ones keep their order"


@pytest.mark.parametrize(("phrases", "reason"), [(None, SAME), (["dog", "cat"], OTHER)])
def test_a_box_below_a_better_one_goes(phrases, reason):
    """Of the two the smaller takes 0.8 of the larger."""
    pair = found([[0, 0, 1, 0.8], [0, 0, 1, 1]], [0.5, 0.6], phrases)
    assert kept(pair) == ([1], {reason: 1})
    limit = "max_overlap" if reason == SAME else "max_overlap_unlike"
    assert kept(pair, **{limit: 0.81}) == ([1, 0], {})
    assert kept(pair, **{limit: 0.79}) == ([1], {reason: 1})


def test_what_is_hidden_hides_nothing():
    """Each overlaps the next by 0.75 of a unit, the first and the third by less than 0.7."""
    chain = found([[0, 0, 0.8, 1], [0.1, 0, 0.9, 1], [0.2, 0, 1, 1]], [0.9, 0.8, 0.7])
    assert kept(chain) == ([0, 2], {SAME: 1})


def test_sides_and_areas():
    sizes = found([[0, 0, 1, 1], [0, 0, 0.019, 1], [0.2, 0.2, 0.5, 0.6]], [0.9, 0.8, 0.7])
    assert kept(sizes) == ([0, 2], {"a side below min_side": 1})
    assert kept(sizes, max_area=0.9, min_side=0.01) == ([1, 2], {"an area above max_area": 1})
    tall = found([[0, 0, 0.9, 1]], [0.9])
    assert kept(tall, max_area=0.9) == ([0], {}), "its area is 0.9"
    assert kept(tall, max_area=0.89) == ([], {"an area above max_area": 1})
    half = found([[0, 0, 0.5, 0.5]], [0.9])
    assert kept(half, max_area=0.3) == ([0], {}), "a quarter of the image"
    empty = found([[0.5, 0.5, 0.5, 0.7]], [0.9])
    assert kept(empty, min_side=0.0) == ([], {"a side below min_side": 1})


def test_what_the_caption_does_not_mention_needs_a_better_score():
    boxes = found(HALVES, [0.3, 0.3], ["dog", "cat"], [True, False])
    assert kept(boxes) == ([0, 1], {})
    reason = "not in the caption, and a score below min_score_unmentioned"
    assert kept(boxes, min_score_unmentioned=0.35) == ([0], {reason: 1})
    assert kept(boxes, min_score_unmentioned=0.35, min_score=0.4) == ([], {})


def test_the_most_of_an_image():
    assert kept(found(HALVES, [0.3, 0.9]), max_boxes=1) == (
        [1],
        {"more than max_boxes in an image": 1},
    )


def test_overlaps_are_intersections_over_unions():
    shares = overlaps(np.array([0, 0, 0.5, 0.5]), np.array([[0, 0, 0.5, 0.5], [0.25, 0, 0.75, 0.5],
                                                            [0.6, 0.6, 1, 1]]))  # fmt: skip
    np.testing.assert_allclose(shares, [1, 1 / 3, 0])


@pytest.mark.parametrize(
    ("caption", "phrase", "expected"),
    [
        ("Two dogs on a beach", "dog", True),
        ("a dog", "dogs", True),
        ("horses in boxes", "horse", True),
        ("horses in boxes", "box", True),
        ("Dog, red!", "red dog", True),
        ("a red car", "red dog", False),
        ("hotdog stand", "dog", False),
        ("glas", "glass", False),
        ("a gas stove", "ga", False),
        ("", "dog", False),
        ("a dog", "!", False),
        ("the dog’s bowl", "dog", True),
    ],
)
def test_mentions(caption, phrase, expected):
    assert mentions(caption, phrase) is expected
