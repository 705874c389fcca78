# SPDX-License-Identifier: Apache-2.0
"""Semantic correspondence with features that the test chooses, on a miniature of SPair-71k."""

import dataclasses
import types

import numpy as np
import pytest
from mtv_jax.evaluators.spair import SpairRecall, sampled, unit_grid

from input_pipeline.layouts.spair import Spair
from mtv_jax.core.errors import UserError
from tests.input_pipeline.layouts import trees

SIDE = 8  # patches


@pytest.fixture
def data(tmp_path):
    trees.spair(tmp_path)
    return Spair(root=str(tmp_path))


def test_images_are_padded_to_squares_with_white(data):
    data.open()
    assert data.categories() == ["cat", "dog"] and len(data) == 4
    cats = dataclasses.replace(data, category="cat")
    image = cats.image(0)
    assert len(cats) == 2 and image.shape == (80, 80, 3)
    assert image[40:].min() == 255 and image[:40].max() < 110


def test_pairs_have_the_keypoints_that_both_show(data):
    cats = dataclasses.replace(data, category="cat")
    (pair,) = cats.pairs(view=0, count=200, size=160)
    assert (pair.source, pair.target, pair.view) == (0, 1, 0)
    np.testing.assert_allclose(pair.source_points, [[20 / 160, 40 / 160], [60 / 160, 78 / 160]])
    np.testing.assert_allclose(pair.target_points, [[0, 0], [152 / 160, 80 / 160]])
    assert pair.scale == 0.5
    (back,) = cats.pairs(view=1, count=200, size=150)
    assert back.scale == 0.5  # a box of 40 x 20 in an image of 80 x 40
    np.testing.assert_allclose(back.target_points, [[18 / 150, 37 / 150], [56 / 150, 73 / 150]])
    assert len(cats.pairs(view=None, count=200, size=160)) == 2
    assert len(cats.pairs(view=None, count=1, size=160)) == 1


def test_sampling_is_bilinear_between_corners():
    grid = np.arange(12.0).reshape(3, 4, 1)
    points = np.asarray([[0, 0], [1, 1], [0.5, 0], [1 / 6, 0.25]])
    np.testing.assert_allclose(sampled(grid, points)[:, 0], [0, 11, 1.5, 2.5])


class Context:
    """Features that say where a patch is: `places` maps patches of the two cats to each other."""

    def __init__(self, *, lost: bool = False):
        rng = np.random.default_rng(0)
        self.codes = rng.normal(size=(SIDE * SIDE, 32))
        self.lost = lost
        self.asked = []

    def batches(self, data, wants, *, size, batch_size):
        assert wants.last_raw and wants.tokens
        self.asked.append((data.category, size, batch_size))
        tokens = np.stack([self.codes] * len(data))
        lost = np.random.default_rng(1).normal(size=tokens.shape)
        yield types.SimpleNamespace(last_raw=lost if self.lost else tokens, tokens=lost)


def test_equal_features_find_equal_places(data, monkeypatch):
    pairs = Spair.pairs
    monkeypatch.setattr(
        Spair,
        "pairs",
        lambda self, *, view, count, size: [
            dataclasses.replace(
                pair,
                source_points=np.asarray([[2 / 7, 3 / 7], [5 / 7, 1 / 7]]),
                target_points=np.asarray([[2 / 8, 3 / 8], [5 / 8, 1 / 8]]),
            )
            for pair in pairs(self, view=view, count=count, size=size)
        ],
    )
    ctx = Context()
    numbers = SpairRecall(name="s", data=data, size=160).run(ctx)
    assert ctx.asked == [("cat", 160, 8), ("dog", 160, 8)]
    assert numbers["all"] == numbers["view0"] == numbers["view1"] == 1.0
    assert np.isnan(numbers["view2"]) and numbers["classes"] == 2
    assert numbers["normed_all"] < 1.0, "the normed features are noise"
    assert SpairRecall(name="s", data=data, size=160).run(Context(lost=True))["all"] < 1.0


def test_a_hit_is_within_the_threshold_of_the_box(data):
    """Patches are 1 / 8 wide: at scale 0.5 only the right one counts, at 2 its neighbours too."""
    evaluator = SpairRecall(name="s", data=data, threshold=0.1)
    grid = unit_grid(Context().codes)
    (pair,) = dataclasses.replace(data, category="cat").pairs(view=0, count=1, size=160)
    exact = dataclasses.replace(
        pair,
        source_points=np.asarray([[2 / 7, 3 / 7]]),
        target_points=np.asarray([[3 / 8, 3 / 8]]),  # one patch beside it
    )
    hit, chance = evaluator.hits(grid, grid, exact)
    assert not hit[0] and chance[0] == 1 / 64
    hit, chance = evaluator.hits(grid, grid, dataclasses.replace(exact, scale=2.0))
    assert hit[0] and chance[0] == 9 / 64  # within 0.2: the eight around it, at up to 0.177


def test_a_feature_of_another_scale_counts_as_much():
    tokens = np.random.default_rng(0).normal(size=(9, 4))
    tokens[0] = 0
    grid = unit_grid(tokens * np.arange(1, 10)[:, None])
    assert grid.shape == (3, 3, 4) and not grid[0, 0].any()
    np.testing.assert_allclose(np.linalg.norm(grid, axis=-1).reshape(-1)[1:], 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("PairAnnotation/test", "the folder PairAnnotation/test is missing"),
        ("JPEGImages", "the folder JPEGImages is missing"),
        ("JPEGImages/cat/2008_000001.jpg", "1 of its files are missing"),
        ("ImageAnnotation/dog/2009_000007.json", "1 of its files are missing"),
    ],
)
def test_damage_is_one_line(data, tmp_path, path, message):
    (tmp_path / path).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"{message}.*; get it from http"):
        data.open()
