# SPDX-License-Identifier: Apache-2.0
"""Features of a data set: padded batches, any devices, one pass per checkpoint."""

import jax
import numpy as np
import pytest

from input_pipeline.eval_set import EvalSet
from input_pipeline.tokenizer import Tokenizer
from mtv_jax.dist.mesh import MeshConfig, make_mesh
from mtv_jax.evaluators.base import EvalContext
from mtv_jax.models.encoder import Encoder

ENCODER = Encoder(
    image_size=16,
    patch_size=8,
    image_tower="cpu",
    text_tower="cpu",
    vocab_size=96,
    text_length=8,
    dtype="float32",
)


@pytest.fixture(scope="module")
def params():
    """Random towers."""
    return jax.jit(ENCODER.init)(jax.random.key(0))


def _context(world, params, devices: int, batch_size: int) -> EvalContext:
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    tokenizer = Tokenizer(str(world / "tokenizer.model"), 8)
    return EvalContext(ENCODER, params, tokenizer, mesh, batch_size=batch_size)


def test_devices_batch_size_and_a_last_partial_batch_change_nothing(world, params):
    data = EvalSet(store=str(world / "test"), limit=21)
    one = _context(world, params, devices=1, batch_size=21).image_features(data)
    assert one.shape == (21, ENCODER.embed_dim) and one.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(one, axis=-1), 1.0, atol=1e-5)
    assert len(np.unique(one.round(5), axis=0)) > 15, "rows differ"
    eight = _context(world, params, devices=8, batch_size=8).image_features(data)
    np.testing.assert_allclose(one, eight, atol=2e-6)


def test_texts_in_their_order(world, params):
    texts = ["a red disc", "a blue square", "a red disc"]
    features = _context(world, params, devices=2, batch_size=2).text_features(texts)
    np.testing.assert_allclose(features[0], features[2], atol=1e-6)
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_a_set_is_embedded_once(world, params):
    context = _context(world, params, devices=1, batch_size=8)
    first = context.image_features(EvalSet(store=str(world / "test"), limit=4))
    assert context.image_features(EvalSet(store=str(world / "test"), limit=4)) is first
    assert context.image_features(EvalSet(store=str(world / "test"), limit=5)) is not first
