# SPDX-License-Identifier: Apache-2.0
"""Correspondence of parts on made scenes; sampling by hand; any devices and batches."""

import types
import zlib

import numpy as np
import pytest

from input_pipeline.layouts.spair import Spair
from input_pipeline.scene_parts import SceneParts
from mtv_jax.evaluators.keypoints import KeypointRecall, sampled, unit_grid
from tests.evaluators.tiny_model import PATCH, context
from tests.input_pipeline.layouts import trees
from tests.input_pipeline.scene_store import scene_store


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> SceneParts:
    return SceneParts(store=str(scene_store(tmp_path_factory.mktemp("scenes"))))


class Context:
    """Features of patches of 4 pixels: the names of the parts nearby, or noise."""

    def __init__(self, *, blind: bool):
        self.blind = blind

    def batches(self, data, wants, *, size, batch_size):
        side = size // 4
        rows, columns = np.divmod(np.arange(side * side), side)
        centres = (np.stack([columns, rows], axis=1) + 0.5) / side
        rng = np.random.default_rng(0)
        for row in range(len(data)):
            noise = rng.normal(size=(side * side, 64))
            told = noise / 1000
            thing = data._thing(row)
            for name, place in thing.places.items() if thing else ():
                code = np.random.default_rng(zlib.crc32(name.encode())).normal(size=64)
                near = np.exp(-((centres - place) ** 2).sum(axis=1) * side**2)
                told = told + near[:, None] * code
            tokens = noise if self.blind else told
            yield types.SimpleNamespace(last_raw=tokens[None], tokens=noise[None])


def test_features_of_parts_find_them_and_noise_is_chance(scenes):
    evaluator = KeypointRecall(name="p", data=scenes, size=128, count=50)
    evaluator.check(())
    numbers = evaluator.run(Context(blind=False))
    assert numbers["all"] > 0.9 and numbers["classes"] == len(scenes.categories())
    assert 0 < numbers["all/chance"] < 0.05
    assert numbers["normed_all"] == pytest.approx(numbers["all/chance"], abs=0.05)
    assert not {"view0", "view1", "view2"} & numbers.keys()
    blind = evaluator.run(Context(blind=True))
    assert blind["all"] == pytest.approx(blind["all/chance"], abs=0.05)
    assert blind["same_place_all"] == numbers["same_place_all"] > 3 * numbers["all/chance"]


def test_sampling_is_bilinear_between_corners():
    grid = np.arange(12.0).reshape(3, 4, 1)
    points = np.asarray([[0, 0], [1, 1], [0.5, 0], [1 / 6, 0.25]])
    np.testing.assert_allclose(sampled(grid, points)[:, 0], [0, 11, 1.5, 2.5])


def test_a_feature_of_another_scale_counts_as_much():
    tokens = np.random.default_rng(0).normal(size=(9, 4))
    tokens[0] = 0
    grid = unit_grid(tokens * np.arange(1, 10)[:, None])
    assert grid.shape == (3, 3, 4) and not grid[0, 0].any()
    np.testing.assert_allclose(np.linalg.norm(grid, axis=-1).reshape(-1)[1:], 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", ["scenes", "spair"])
def test_devices_and_a_last_partial_batch_change_nothing(scenes, tmp_path, name):
    """Classes have a few images each: the last batch of 2 may be one, and 8 are never full."""
    data = scenes
    if name == "spair":
        trees.spair(tmp_path)
        data = Spair(root=str(tmp_path))
    one, eight = (
        KeypointRecall(name="p", data=data, size=8 * PATCH, batch_size=batch, threshold=0.3).run(
            context(devices)
        )
        for devices, batch in ((1, 2), (8, 8))
    )
    assert one.keys() == eight.keys() and one["all/chance"] > 0
    for key, value in one.items():
        assert eight[key] == pytest.approx(value, abs=1e-3, nan_ok=True), key
