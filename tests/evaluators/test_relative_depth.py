# SPDX-License-Identifier: Apache-2.0
"""AbsRel after an affine fit, against closed forms; the probe against targets it can reach."""

import dataclasses
import types

import numpy as np
import pytest

from input_pipeline.decode import encode_png16
from input_pipeline.eval_set import EvalSet
from input_pipeline.store import finish_sidecar, finish_store, write_shard
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import DEPTH, IMAGE
from mtv_jax.core.passes import Features
from mtv_jax.evaluators.base import EvalModel
from mtv_jax.evaluators.relative_depth import (
    HeadDepth,
    LinearDepth,
    absrel,
    absrel_of_depth,
    aligned,
)
from mtv_jax.objectives.depth import Depth

ROWS, SIDE, GRID = 12, 16, 4
TRUTH = dataclasses.replace(DEPTH, name="metric_depth")


def _maps() -> np.ndarray:
    """Disparities in (0, 1], smooth and each different."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    draw = np.random.default_rng(0).uniform(0.2, 1.0, (ROWS, 4))
    return np.stack([0.1 + (a * x + b * y + c * x * y + d) / 5 for a, b, c, d in draw])


MAPS = _maps()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> EvalSet:
    """Labels are disparities, the truth is depth in units of 1 / 1000; row 0 has no truth."""
    path = tmp_path_factory.mktemp("depth")
    keys = [{"key": str(row)} for row in range(ROWS)]
    labels = [{"depth": encode_png16(np.uint16(np.round(m * 65535)))} for m in MAPS]
    truths = [{"metric_depth": encode_png16(np.uint16(np.round(1000 / m)))} for m in MAPS]
    truths[0] = {}
    write_shard(path, "images", 0, keys)
    finish_store(path, "depth", (IMAGE,), {})
    for name, field, rows in (("depth_v1", DEPTH, labels), ("scene_v1", TRUTH, truths)):
        write_shard(path, name, 0, [{**key, **row} for key, row in zip(keys, rows, strict=True)])
        finish_sidecar(path, name, (field,), {})
    return EvalSet(store=str(path), sidecars=("depth_v1", "scene_v1"))


def _settings(data: EvalSet) -> dict:
    return {"name": "d", "data": data, "train": data}


def test_an_affine_map_of_the_truth_has_no_error_and_a_constant_the_analytic_one():
    truth = MAPS[1]
    assert absrel(3.0 * truth - 7.0, truth) < 1e-6
    assert absrel(-0.5 * truth, truth) < 1e-6, "the fit may turn a map round"
    analytic = np.mean(np.abs(truth.mean() - truth) / truth)
    assert absrel(np.full((SIDE, SIDE), 5.0), truth) == pytest.approx(analytic, rel=1e-9)
    assert absrel(np.full((SIDE, SIDE), np.nan), truth) == np.inf


def test_scale_of_the_truth_and_unknown_pixels_change_nothing():
    truth, guess = MAPS[1], MAPS[2]
    error = absrel(guess, truth)
    assert error > 0.01 and absrel(guess, 1000 * truth) == pytest.approx(error, rel=1e-6)
    holes = truth.copy()
    holes[:, :5] = 0
    cut = absrel(guess[:, 5:], truth[:, 5:])
    wild = guess.copy()
    wild[:, :5] = 1e9
    assert absrel(wild, holes) == pytest.approx(cut, rel=1e-6)
    assert np.isnan(absrel(guess, np.zeros_like(truth)))


def test_the_fit_is_least_squares():
    x, y = np.random.default_rng(1).normal(size=(2, 50))
    design = np.stack([x, np.ones(50)], axis=1)
    expected = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(aligned(x, y), expected, rtol=1e-9)


def test_a_small_map_is_compared_at_the_truths_size():
    coarse = MAPS[1].reshape(GRID, 4, GRID, 4).mean(axis=(1, 3))
    assert 0 < absrel(coarse, MAPS[1]) < 0.02


def test_the_head_is_scored_against_the_mean_map_of_the_training_set(data):
    head = HeadDepth(**_settings(data))
    context = types.SimpleNamespace(
        model=types.SimpleNamespace(encoder=types.SimpleNamespace(image_size=SIDE)),
        maps=lambda asked, name: {"disparity": MAPS if asked == data else None},
    )
    numbers = head.run(context)
    blind = [absrel(MAPS.mean(axis=0), m) for m in MAPS[1:]]
    assert numbers["absrel"] < 1e-3, "labels and truth are rounded"
    assert numbers["absrel/chance"] == pytest.approx(np.mean(blind), rel=0.02)
    assert numbers["images"] == ROWS - 1


def test_truth_may_be_disparity(data):
    settings = _settings(data) | {"truth": "depth", "truth_is": "disparity"}
    errors = HeadDepth(**settings).errors(MAPS)
    assert errors.shape == (ROWS,) and errors.max() < 1e-3


class Tokens:
    """Stands for a context whose patch tokens hold the disparity of their patch, hidden."""

    model = types.SimpleNamespace(
        encoder=types.SimpleNamespace(embed_dim=6, image_size=SIDE, grid=GRID)
    )

    def __init__(self, *, hides: bool):
        self.hides = hides

    def batches(self, data: EvalSet, wants):
        assert wants.tokens and wants.pooled
        means = MAPS.reshape(ROWS, GRID, 4, GRID, 4).mean(axis=(2, 4)).reshape(ROWS, -1)
        standard = (means - means.mean(1, keepdims=True)) / means.std(1, keepdims=True)
        mixing = np.random.default_rng(2).normal(size=(6, 6))
        tokens = np.random.default_rng(3).normal(size=(ROWS, GRID * GRID, 6))
        tokens[..., 0] = standard + 5 if self.hides else 0
        tokens[..., 1] += 3000  # a feature that is always large, as trained towers have them
        for rows in (slice(0, 5), slice(5, ROWS)):
            yield Features(tokens=(tokens @ mixing)[rows], pooled=np.zeros((ROWS, 6))[rows])


def test_the_probe_finds_what_is_linear_in_the_tokens(data):
    probe = LinearDepth(**_settings(data), ridge=1e-6)
    seeing, blind = probe.run(Tokens(hides=True)), probe.run(Tokens(hides=False))
    assert seeing["absrel"] < 0.03 < blind["absrel"]
    assert seeing["absrel/chance"] == blind["absrel/chance"] > 0.02


def test_unlabelled_images_take_no_part_and_predictions_are_standardised(data, monkeypatch):
    """An image without a label must not pull the fit towards zero."""
    probe = LinearDepth(**_settings(data), ridge=1e-6)
    fit = probe.fit(Tokens(hides=True))
    original = EvalSet.raster

    def lost(self: EvalSet, index: int, name: str) -> np.ndarray:
        return original(self, index, name) if index % 3 else np.zeros((1, 1), np.uint16)

    monkeypatch.setattr(EvalSet, "raster", lost)
    without = probe.fit(Tokens(hides=True))
    monkeypatch.undo()
    np.testing.assert_allclose(without.weights, fit.weights, atol=0.02)
    for found, m in zip(probe.predictions(Tokens(hides=True)), MAPS, strict=True):
        patches = m.reshape(GRID, 4, GRID, 4).mean(axis=(1, 3))
        np.testing.assert_allclose(found, (patches - patches.mean()) / patches.std(), atol=0.05)


def test_what_is_missing_is_said_before_the_run(data, monkeypatch):
    HeadDepth(**_settings(data)).check(())
    with pytest.raises(UserError, match="has no column 'metric_depth'"):
        bare = dataclasses.replace(data, sidecars=("depth_v1",))
        HeadDepth(**_settings(data) | {"data": bare}).check(())
    with pytest.raises(UserError, match=r"no row of .* has a map in its column"):
        monkeypatch.setattr(EvalSet, "raster", lambda *_: np.zeros((1, 1), np.uint16))
        HeadDepth(**_settings(data)).check(())
    without = dataclasses.replace(data, sidecars=())
    with pytest.raises(UserError, match="has no column 'depth'"):
        HeadDepth(**_settings(data) | {"train": without}).check(())
    objectives = {"depth": Depth(name="depth")}
    model = EvalModel(encoder=None, params={"heads": {}}, objectives=objectives)
    assert "no head 'depth_dpt'" in HeadDepth(**_settings(data)).unavailable(model)


def test_depth_space_has_the_fit_of_disparity_space():
    """By hand: d = y is exact; a fit that falls below 1 / farthest is clipped there."""
    truth = np.asarray([[1.0, 0.5], [0.25, 0.0]])
    assert absrel_of_depth(truth * 3 + 1, truth, farthest=10.0) < 1e-6
    guess = np.asarray([[1.0, 0.0], [0.0, 7.0]])  # the fit: 1 and twice 0.375
    expected = np.mean([0.0, abs(1 / 0.375 - 2) / 2, abs(1 / 0.375 - 4) / 4])
    assert absrel_of_depth(guess, truth, farthest=10.0) == pytest.approx(expected)
    clipped = np.mean([abs(2 - 1) / 1 * 0, 0.0, abs(2 - 4) / 4])
    assert absrel_of_depth(guess, truth, farthest=2.0) == pytest.approx(clipped)
    assert np.isnan(absrel_of_depth(guess, np.zeros((2, 2)), farthest=2.0))
    assert absrel_of_depth(np.full((2, 2), np.nan), truth, farthest=2.0) == np.inf


def test_without_a_training_set_there_is_no_chance_level(data):
    head = HeadDepth(name="d", data=data, farthest=1e5)
    context = types.SimpleNamespace(
        model=types.SimpleNamespace(encoder=types.SimpleNamespace(image_size=SIDE)),
        maps=lambda asked, name: {"disparity": MAPS},
    )
    numbers = head.run(context)
    assert numbers.keys() == {"absrel", "absrel_depth", "images"}
    assert numbers["absrel_depth"] < 1e-2
