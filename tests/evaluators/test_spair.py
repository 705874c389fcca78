# SPDX-License-Identifier: Apache-2.0
"""Semantic correspondence with features that the test chooses, on a miniature of SPair-71k."""

import dataclasses
import types

import numpy as np
import pytest

from input_pipeline.layouts.spair import Spair
from mtv_jax.core.errors import UserError
from mtv_jax.evaluators.keypoints import KeypointRecall, unit_grid
from tests.input_pipeline.layouts import trees

SIDE = 8  # patches


@pytest.fixture
def data(tmp_path):
    trees.spair(tmp_path)
    return Spair(root=str(tmp_path))


def test_images_are_padded_to_squares_with_white(data):
    data.open()
    assert data.categories() == ["cat", "dog"] and len(data) == 4
    cats = data.only("cat")
    image = cats.image(0)
    assert len(cats) == 2 and image.shape == (80, 80, 3)
    assert image[40:].min() == 255 and image[:40].max() < 110


def test_pairs_have_the_keypoints_that_both_show(data):
    cats = data.only("cat")
    (pair,) = cats.pairs("view0", count=200, size=160)
    assert (pair.source, pair.target) == (0, 1)
    np.testing.assert_allclose(pair.source_points, [[20 / 160, 40 / 160], [60 / 160, 78 / 160]])
    np.testing.assert_allclose(pair.target_points, [[0, 0], [152 / 160, 80 / 160]])
    assert pair.scale == 0.5
    (back,) = cats.pairs("view1", count=200, size=150)
    assert back.scale == 0.5  # a box of 40 x 20 in an image of 80 x 40
    np.testing.assert_allclose(back.target_points, [[18 / 150, 37 / 150], [56 / 150, 73 / 150]])
    assert len(cats.pairs("all", count=200, size=160)) == 2
    assert len(cats.pairs("all", count=1, size=160)) == 1


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
        lambda self, view, *, count, size: [
            dataclasses.replace(
                pair,
                source_points=np.asarray([[2 / 7, 3 / 7], [5 / 7, 1 / 7]]),
                target_points=np.asarray([[2 / 8, 3 / 8], [5 / 8, 1 / 8]]),
            )
            for pair in pairs(self, view, count=count, size=size)
        ],
    )
    ctx = Context()
    numbers = KeypointRecall(name="s", data=data, size=160).run(ctx)
    assert ctx.asked == [("cat", 160, 8), ("dog", 160, 8)]
    assert numbers["all"] == numbers["view0"] == numbers["view1"] == 1.0
    assert np.isnan(numbers["view2"]) and numbers["classes"] == 2
    assert numbers["normed_all"] < 1.0, "the normed features are noise"
    assert KeypointRecall(name="s", data=data, size=160).run(Context(lost=True))["all"] < 1.0


def test_a_hit_is_within_the_threshold_of_the_box(data):
    """Patches are 1 / 8 wide: at scale 0.5 only the right one counts, at 2 its neighbours too."""
    evaluator = KeypointRecall(name="s", data=data, threshold=0.1)
    grid = unit_grid(Context().codes)
    (pair,) = data.only("cat").pairs("view0", count=1, size=160)
    exact = dataclasses.replace(
        pair,
        source_points=np.asarray([[2 / 7, 3 / 7]]),
        target_points=np.asarray([[3 / 8, 3 / 8]]),  # one patch beside it
    )
    hit, chance = evaluator.hits(grid, grid, exact)
    assert not hit[0] and chance[0] == 1 / 64
    hit, chance = evaluator.hits(grid, grid, dataclasses.replace(exact, scale=2.0))
    assert hit[0] and chance[0] == 9 / 64  # within 0.2: the eight around it, at up to 0.177


GONE = "gone"
PAIR = "PairAnnotation/test/000003-2009_000007-2009_000008:dog.json"


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("PairAnnotation/test", GONE, "the folder PairAnnotation/test is missing"),
        ("JPEGImages", GONE, "the folder JPEGImages is missing"),
        ("JPEGImages/cat/2008_000001.jpg", GONE, "1 of its files are missing"),
        ("ImageAnnotation/dog/2009_000007.json", GONE, "1 of its files are missing"),
        (PAIR, b'{"category": "dog"', r":dog.json is not SPair-71k's: JSONDecodeError"),
        (PAIR, b'{"category": "dog"}', r":dog.json is not SPair-71k's: KeyError\('trg_bndbox'"),
        (PAIR, b"[]", r":dog.json is not SPair-71k's: TypeError"),
        ("ImageAnnotation/dog/2009_000007.json", b'{"kps": {"a": 1}}', "7.json is not .*KeyError"),
        ("ImageAnnotation/dog/2009_000007.json", b"\xff", "2009_000007.json is not .*Unicode"),
        (
            "ImageAnnotation/dog/2009_000007.json",
            b'{"kps": {"0": [3, 3], "1": null}}',
            "dog images 2009_000007.jpg and 2009_000008.jpg are a pair, but list 2 and 1 keypoints",
        ),
    ],
)
def test_damage_is_one_line(data, tmp_path, path, content, message):
    path = tmp_path / path
    path.rename(tmp_path / "elsewhere") if content == GONE else path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^Spair in .*{message}.*; get it from http") as error:
        data.open()
    assert "\n" not in str(error.value)
