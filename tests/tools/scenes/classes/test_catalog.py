# SPDX-License-Identifier: Apache-2.0
"""The classes: names, parts, and that each can be shown."""

import numpy as np
import pytest

from tools.scenes.classes.catalog import CLASSES
from tools.scenes.identity import Identity
from tools.scenes.layout import Plan, draw_scene
from tools.scenes.materials import PATTERNS
from tools.scenes.render import render
from tools.scenes.surroundings import draw_surroundings
from tools.scenes.things import build
from tools.scenes.vary import Vary
from tools.scenes.visibility import shows_well, sightings, silhouettes


def test_names_are_unambiguous():
    names = [name for kind in CLASSES for name in kind.names]
    assert len(set(names)) == len(names)
    assert len(CLASSES) == 33


@pytest.mark.parametrize("class_id", range(len(CLASSES)), ids=[kind.name for kind in CLASSES])
def test_class_stands_on_the_ground_and_shows_in_any_pattern(class_id):
    thing = build(Vary(1, class_id), Identity(class_id, "red", "plain", "matte", "medium"))
    low, high = thing.outline.min(axis=1), thing.outline.max(axis=1)
    assert abs(low[2]) < 1e-6
    assert 0.6 < (high - low).max() < 1.6  # turned, so not quite 1
    names = [part.name for part in thing.parts]
    assert sum(names.count(name) == 1 for name in names) >= 1  # a keypoint
    for number, pattern in enumerate(PATTERNS):
        assert any(_shows(class_id, pattern, attempt) for attempt in range(number, number + 25))


def _shows(class_id, pattern, attempt) -> bool:
    """Whether a layout shows the class with its colour."""
    vary = Vary(2, class_id, attempt)
    identity = Identity(class_id, "red", pattern, "matte", "medium")
    scene = draw_scene(vary, Plan(identity, 1, False, draw_surroundings(vary), 32, 32))
    outlines = silhouettes(scene, scene.camera)
    if not shows_well(scene, outlines):
        return False
    seen = sightings(scene, outlines, render(scene, scene.camera))
    return bool(seen) and seen[0].color_shown


def test_classes_are_told_apart_by_shape():
    """Occupancy of coarse cells: every class differs from every other by more than its own kind."""
    cells = np.stack(
        [[_occupancy(class_id, seed) for seed in range(3)] for class_id in range(len(CLASSES))]
    )
    means = cells.mean(axis=1)
    within = abs(cells - means[:, None]).mean(axis=(1, 2))
    for class_id, mean in enumerate(means):
        gaps = abs(means - mean).mean(axis=1)
        gaps[class_id] = np.inf
        assert gaps.min() > within[class_id], CLASSES[class_id].name


def _occupancy(class_id, seed):
    """Density of outline points in cells of radius and height: blind to the heading."""
    identity = Identity(class_id, "red", "plain", "matte", "medium")
    x, y, z = build(Vary(3, class_id, seed), identity).outline
    cells, _, _ = np.histogram2d(np.hypot(x, y), z, bins=(5, 8), range=((0, 0.8), (0, 1.1)))
    return (cells / cells.sum()).ravel()
