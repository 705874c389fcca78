# SPDX-License-Identifier: Apache-2.0
"""A tiny image tower of random weights, on some of the test's devices."""

import functools

import jax

from mtv_jax.dist.mesh import MeshConfig, make_mesh
from mtv_jax.evaluators.base import EvalContext, EvalModel
from mtv_jax.models.encoder import Encoder

PATCH = 32


@functools.cache
def _model() -> EvalModel:
    encoder = Encoder(
        image_size=4 * PATCH,
        patch_size=PATCH,
        image_tower="cpu",
        has_text_tower=False,
        dtype="float32",
    )
    return EvalModel(
        encoder=encoder, params={"backbone": encoder.init(jax.random.key(0)), "heads": {}}
    )


def context(devices: int, batch_size: int = 256) -> EvalContext:
    """The model on so many devices."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    return EvalContext(_model(), mesh, batch_size=batch_size)
