# SPDX-License-Identifier: Apache-2.0
"""Held-out combinations, and the independence of class and attributes."""

import itertools
from collections import Counter

import numpy as np
import pytest

from tools.scenes.identity import FREE, HELD_OUT
from tools.scenes.materials import COLORS, PATTERNS
from tools.scenes.sample import draw_plan

_PLANS = 4000
_OF_PLAN = ("count", "portrait", "width", "height")
_ATTRIBUTES = ("color", "pattern", "finish", "size", "ground", "backdrop", *_OF_PLAN)


@pytest.fixture(scope="module")
def plans():
    return {
        split: [draw_plan(0, split, index, 64) for index in range(_PLANS)]
        for split in ("train", "test")
    }


@pytest.mark.parametrize("combinations", [FREE, HELD_OUT], ids=["free", "held out"])
def test_no_two_of_class_color_and_pattern_depend_on_each_other(combinations):
    for first, second in itertools.combinations(range(3), 2):
        pairs = Counter((one[first], one[second]) for one in combinations)
        # 33 classes do not divide by 5 patterns: as even as whole numbers allow.
        assert max(pairs.values()) - min(pairs.values()) <= 1
        every = len({a for a, _ in pairs}) * len({b for _, b in pairs})
        assert len(pairs) == every


def test_a_fifth_is_held_out():
    assert not set(HELD_OUT) & set(FREE)
    assert len(HELD_OUT) == 33 * len(COLORS) * len(PATTERNS) / 5
    assert len(FREE) == 4 * len(HELD_OUT)


def test_splits_keep_to_their_combinations(plans):
    for split, combinations in (("train", FREE), ("test", HELD_OUT)):
        drawn = Counter((p.main.class_id, p.main.color, p.main.pattern) for p in plans[split])
        assert set(drawn) <= set(combinations)
        assert len(drawn) > 0.9 * len(combinations)


@pytest.mark.parametrize("attribute", _ATTRIBUTES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_class_tells_nothing_about_attributes(plans, split, attribute):
    classes = np.array([plan.main.class_id for plan in plans[split]])
    values = np.unique([_value(plan, attribute) for plan in plans[split]], return_inverse=True)[1]
    rng = np.random.default_rng(0)
    by_chance = [_information(classes, rng.permutation(values)) for _ in range(100)]
    assert _information(classes, values) < np.mean(by_chance) + 5 * np.std(by_chance)


def _value(plan, attribute) -> str:
    for owner in (plan, plan.main, plan.surroundings):
        if hasattr(owner, attribute):
            return str(getattr(owner, attribute))
    raise AttributeError(attribute)


def _information(left, right) -> float:
    """Mutual information of two columns of labels in nats."""
    joint = np.zeros((left.max() + 1, right.max() + 1))
    np.add.at(joint, (left, right), 1 / len(left))
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / independent[seen])).sum())
