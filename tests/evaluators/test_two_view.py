# SPDX-License-Identifier: Apache-2.0
"""Geometric correspondence on made scenes; matching by hand; any devices and batches."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from PIL import Image

from input_pipeline.layouts.navi import Navi
from input_pipeline.scene_views import SceneViews
from mtv_jax.core.errors import UserError
from mtv_jax.dist.mesh import MeshConfig, make_mesh
from mtv_jax.evaluators.two_view import (
    Places,
    TwoViewRecall,
    matched,
    near_shares,
    projected,
    resized,
)
from tests.evaluators.tiny_model import PATCH, context
from tests.input_pipeline.layouts import trees
from tests.input_pipeline.scene_store import SCENES, scene_store

MESH = make_mesh(MeshConfig(), jax.devices()[:1])
RULES = dict(
    side=32,
    matches=50,
    centimetres=(5, 10, 20),
    headline=10,
    pixels=(4, 8),
    degrees=(0, 15, 30, 50),
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> SceneViews:
    return SceneViews(store=str(scene_store(tmp_path_factory.mktemp("scenes"))))


class Context:
    """Features of patches of 8 pixels: of the point in the world that each shows, or noise."""

    mesh = MESH

    def __init__(self, *, blind: bool):
        self.blind = blind

    def batches(self, data, wants, *, size, batch_size):
        rng = np.random.default_rng(0)
        waves = rng.normal(0, 8, (3, 128))
        for row in range(len(data)):
            points = data.points(row, size // 8).reshape(-1, 3).astype(np.float64)
            pose = data.pose(row)
            seen = np.cos((points - pose[:3, 3]) @ pose[:3, :3] @ waves + np.arange(128))
            noise = rng.normal(size=seen.shape)
            seen = np.where(points[:, 2:] > 0, seen, noise)
            tokens = noise if self.blind else seen
            yield types.SimpleNamespace(last_raw=tokens[None], tokens=noise[None])


def test_features_of_the_surface_are_matched_and_noise_is_chance(scenes):
    evaluator = TwoViewRecall(name="v", data=scenes, size=128, **RULES)
    evaluator.check(())
    numbers = evaluator.run(Context(blind=False))
    assert numbers["pairs"] == SCENES
    assert numbers["recall"] > 0.9 and numbers["20cm"] > 0.95
    assert numbers["5cm"] < numbers["10cm"] < numbers["20cm"] and numbers["4px"] < numbers["8px"]
    assert 0.2 < numbers["same_place"] < 0.7, "the object is in the middle of both"
    assert {"0_15", "15_30", "30_50"} < numbers.keys()
    blind = evaluator.run(Context(blind=True))
    assert blind["same_place"] == numbers["same_place"]
    for name in ("recall", "5cm", "10cm", "20cm", "4px", "8px"):
        chance = blind[f"{name}/chance"]
        assert 0 < chance < 0.2
        assert blind[name] == pytest.approx(chance, abs=0.03)
        assert blind[f"normed_{name}"] == pytest.approx(chance, abs=0.03)


def test_the_chance_is_the_share_of_places_that_would_be_right():
    rng = np.random.default_rng(0)
    wanted, there = rng.normal(size=(300, 3)), rng.normal(size=(77, 3))
    distances = np.linalg.norm(wanted[:, None] - there, axis=-1)
    expected = np.stack([(distances < t).mean(axis=1) for t in (0.5, 2.0)], axis=1)
    np.testing.assert_allclose(near_shares(wanted, there, (0.5, 2.0)), expected)
    assert expected.std() > 0.1


def test_what_is_nowhere_in_the_other_view_is_never_right(scenes):
    """Three points, one of them unknown there; the features are those of the places."""
    evaluator = TwoViewRecall(name="v", data=scenes, side=2, matches=9)
    first = np.asarray([[0.0, 0, 1, 0, 0], [1, 0, 1, 90, 0], [0, 1, 1, 0, 90], [9, 9, 9, 9, 9]])
    second = first + np.asarray([0.015, 0, 0, 10, 0])  # 1.5 cm and 10 pixels to the right
    second[1] = first[3] = np.nan
    tokens = np.eye(4)
    hits = evaluator.hits(MESH, Places(first, second), (tokens, tokens))
    # The second point has no counterpart: its match is some other, far away.
    # Centimetres 1, 2, 5; pixels 5, 25, 50.
    assert hits.right.tolist().count([False, True, True, False, True, True]) == 2
    assert hits.right.sum() == 8 and hits.right.shape == (3, 6)
    assert sorted(hits.chance[:, 1]) == pytest.approx([0, 1 / 3, 1 / 3])
    same = evaluator._right(first, second)
    assert same[:, 1].tolist() == [True, False, True, False]


def test_matches_are_ordered_by_their_ratio():
    first = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]])
    second = np.asarray([[1.0, 0.05], [0.05, 1.0], [-1.0, 0.0]])
    matches = matched(MESH, first, second, 2)
    assert sorted(matches.first.tolist()) == [0, 1]  # the third is as near to both
    assert matches.second.tolist() == matches.first.tolist()
    assert len(matched(MESH, first[:0], second, 2).first) == 0


def test_bicubic_resizing_keeps_constants_and_a_grid_of_its_size():
    """What lies between is compared with PyTorch's in tests/golden."""
    np.testing.assert_allclose(resized(np.ones((5, 5, 2)), 20), 1.0, rtol=1e-6)
    grid = np.random.default_rng(0).normal(size=(6, 6, 3))
    np.testing.assert_allclose(resized(grid, 6), grid, atol=1e-6)


def test_projection_has_two_focal_lengths():
    pixels = projected(np.asarray([[1.0, 2.0, 4.0]]), np.asarray([100.0, 50.0]))
    np.testing.assert_allclose(pixels, [[25, 25]])


def test_a_headline_that_is_not_measured_is_said(scenes):
    with pytest.raises(UserError, match=r"evals\.v\.headline = 3 should be one of its centimetres"):
        TwoViewRecall(name="v", data=scenes, headline=3).check(())


def navi(path) -> Navi:
    """NAVI's miniature, with pictures that differ everywhere."""
    trees.navi(path)
    rng = np.random.default_rng(0)
    for picture in sorted(path.glob("plate/wild_set/images/*.jpg")):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(picture)
    return Navi(root=str(path))


@pytest.mark.parametrize("name", ["scenes", "navi"])
def test_devices_and_a_last_partial_batch_change_nothing(scenes, tmp_path, name, monkeypatch):
    """22 views of scenes in parts of 10, 10 and 2, and 5 of NAVI; batches of 3, and of 8.

    The points of a view are more than one device's part of the bank.
    """
    monkeypatch.setattr("input_pipeline.scene_views._TOGETHER", 5)
    data = dataclasses.replace(scenes, limit=11) if name == "scenes" else navi(tmp_path)
    size = 4 * PATCH if name == "scenes" else 512
    one, eight = (
        TwoViewRecall(
            name="v",
            data=data,
            size=size,
            side=32,
            matches=1024,  # all: a tie does not decide which ones count
            batch_size=batch,
            centimetres=(2, 10, 20),
            degrees=(0, 20, 120),
        ).run(context(devices))
        for devices, batch in ((1, 3), (8, 8))
    )
    assert one.keys() == eight.keys() and 0 < one["20cm/chance"] < one["20cm"] < 1
    for key, value in one.items():
        assert eight[key] == pytest.approx(value, abs=2e-3, nan_ok=True), key
