# SPDX-License-Identifier: Apache-2.0
"""Features of a data set: padded batches, any devices, one pass per checkpoint."""

import dataclasses

import jax
import numpy as np
import pytest

from input_pipeline.eval_set import EvalSet
from mtv_jax.assemble import System
from mtv_jax.core.passes import Wants
from mtv_jax.dist.mesh import MeshConfig, make_mesh
from mtv_jax.evaluators.base import EvalContext, EvalModel
from tests.tools.tiny import tiny_config


@pytest.fixture(scope="module")
def model(world) -> EvalModel:
    """Random towers and a random depth head."""
    system = System(tiny_config(world, tasks="vl+depth"), devices=jax.devices()[:1])
    params = jax.device_get(system.init_state().params)
    objectives = {objective.name: objective for objective in system.model.objectives}
    return EvalModel(
        encoder=system.model.encoder,
        params=params,
        objectives=objectives,
        tokenizer=system.tokenizer,
    )


def _context(model, devices: int, batch_size: int) -> EvalContext:
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    return EvalContext(model, mesh, batch_size=batch_size)


def test_devices_batch_size_and_a_last_partial_batch_change_nothing(world, model):
    data = EvalSet(store=str(world / "test"), limit=21)
    one = _context(model, devices=1, batch_size=21).image_features(data)
    assert one.shape == (21, model.encoder.embed_dim) and one.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(one, axis=-1), 1.0, atol=1e-5)
    assert len(np.unique(one.round(5), axis=0)) > 15, "rows differ"
    eight = _context(model, devices=8, batch_size=8).image_features(data)
    np.testing.assert_allclose(one, eight, atol=2e-6)


def test_texts_in_their_order(world, model):
    texts = ["a red disc", "a blue square", "a red disc"]
    features = _context(model, devices=2, batch_size=2).text_features(texts)
    np.testing.assert_allclose(features[0], features[2], atol=1e-6)
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_a_set_is_embedded_once(world, model):
    context = _context(model, devices=1, batch_size=8)
    first = context.image_features(EvalSet(store=str(world / "test"), limit=4))
    assert context.image_features(EvalSet(store=str(world / "test"), limit=4)) is first
    assert context.image_features(EvalSet(store=str(world / "test"), limit=5)) is not first


def test_maps_and_features_come_in_order_whatever_the_batches(world, model):
    data = EvalSet(store=str(world / "test"), limit=21)
    one, eight = _context(model, 1, 21), _context(model, 8, 8)
    maps = one.maps(data, "depth")["disparity"]
    assert maps.shape == (21, 16, 16) and one.maps(data, "depth")["disparity"] is maps
    np.testing.assert_allclose(maps, eight.maps(data, "depth")["disparity"], atol=2e-5)
    wants = Wants(tokens=True)
    whole = np.concatenate([features.tokens for features in one.batches(data, wants)])
    parts = [features.tokens for features in eight.batches(data, wants)]
    assert [len(part) for part in parts] == [8, 8, 5] and whole.shape == (21, 4, 128)
    np.testing.assert_allclose(whole, np.concatenate(parts), atol=2e-5)


def test_what_a_model_lacks_is_said(model):
    bare = dataclasses.replace(model, params={**model.params, "heads": {}}, tokenizer=None)
    assert not model.lacks_text() and not model.lacks_maps("depth")
    assert "no text tower" in bare.lacks_text()
    assert "no head 'depth_dpt'" in bare.lacks_maps("depth")
    assert "not trained with an objective 'normals'" in bare.lacks_maps("normals")
