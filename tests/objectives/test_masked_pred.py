# SPDX-License-Identifier: Apache-2.0
"""Tests of masked prediction: what is masked, where, and what is compared."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core import rng
from mtv_jax.core.errors import UserError
from mtv_jax.core.passes import Features, Wants
from mtv_jax.objectives.base import Context
from mtv_jax.objectives.masked_pred import MaskedPred
from mtv_jax.views.batch import BatchSpec, open_batch
from tests.arch.systems import VIEWS, evaluate, tiny_batch, tiny_model, tiny_params

NAME = "masked_pred"


def _derived(masked: float = 0.5, patch_size: int = 2):
    model = tiny_model((NAME,))
    spec = BatchSpec(views=VIEWS, fields=model.spec.fields, patch_size=patch_size)
    raw = jax.tree.map(jnp.asarray, tiny_batch(model))
    batch = open_batch(raw, seed=3, spec=spec)
    objective = MaskedPred(name=NAME, prototypes=8, masked=masked)
    derived = objective.derive(batch, rng.named(batch.keys, NAME))
    return {key.removeprefix(f"{NAME}/"): np.asarray(x) for key, x in derived.items()}


@pytest.mark.parametrize(("masked", "count"), [(0.5, 32), (0.3, 19)])
def test_7_exactly_so_many_patches_are_masked_in_every_image(masked, count):
    """Of 64 patches of an 8 × 8 grid; others in every image, all places about as often."""
    derived = _derived(masked)
    np.testing.assert_array_equal(derived["patch_mask"].sum(axis=1), count)
    for mask, patches in zip(derived["patch_mask"], derived["patches"], strict=True):
        np.testing.assert_array_equal(np.flatnonzero(mask), np.sort(patches))
    assert len({mask.tobytes() for mask in derived["patch_mask"]}) == 16
    places = derived["patch_mask"].mean(axis=0)
    assert places.min() > 0.05 and places.max() < 0.95


def test_7_the_mask_token_is_put_before_the_position_embedding():
    """Where a patch is masked the tower reads token plus position, whatever the pixels."""
    model, params = tiny_model((NAME,)), tiny_params((NAME,))
    image = params["backbone"]["image"]
    image = {**image, "mask_token": jnp.full((1, 16), 0.3)}
    pixels = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3), minval=-1.0)
    mask = jnp.array([[True, False, True, False], [False, True, True, False]])
    wants = Wants(embedded=True)
    got = model.encoder.image({"image": image}, pixels, wants, patch_mask=mask).embedded
    expected = 0.3 + image["pos_embed"]
    np.testing.assert_allclose(got[mask], jnp.broadcast_to(expected, (2, 4, 16))[mask], rtol=1e-6)
    clear = model.encoder.image({"image": image}, pixels, wants).embedded
    np.testing.assert_array_equal(got[~mask], clear[~mask])


@pytest.mark.parametrize("masked", [0.0, 0.01, 1.0])
def test_some_patches_are_masked_and_some_are_not(masked):
    with pytest.raises(UserError, match=r"objectives\.masked_pred\.masked"):
        _derived(masked)


def test_masked_tokens_meet_the_teachers_of_the_same_place():
    """Token j of image i is the number 100 i + j, the teacher's is one half more."""
    objective = MaskedPred(name=NAME, prototypes=8)
    patches = jnp.array([[3, 0], [1, 2]])
    numbers = jnp.arange(2)[:, None, None] * 100.0 + jnp.arange(4)[None, :, None]
    batch = dataclasses.replace(
        open_batch(
            jax.tree.map(lambda x: jnp.asarray(x[:2]), tiny_batch(tiny_model((NAME,)))),
            seed=0,
            spec=tiny_model((NAME,)).spec,
        ),
        inputs={f"{NAME}/patches": patches},
    )
    feats = {
        objective.masked_pass.id: Features(tokens=numbers),
        objective.teacher.id: Features(tokens=numbers + 0.5),
    }
    ctx = Context(
        student={},
        ema={},
        feats=feats,
        batch=batch,
        slots={},
        step=jnp.zeros(()),
        progress=jnp.zeros(()),
    )
    pairs = objective.pairs(ctx)
    np.testing.assert_array_equal(pairs.students[:, :, 0, 0], [[3, 0], [101, 102]])
    np.testing.assert_array_equal(pairs.teachers[..., 0], [[3.5, 0.5], [101.5, 102.5]])


def test_12_local_crops_teach_the_pooling_and_masked_patches_do_not():
    """Gradients on the MAP head: of self-distillation some, of masked prediction none."""

    def moved(name: str) -> float:
        teacher = jax.tree.map(lambda x: x + 0.05, tiny_params((name,)))
        image = evaluate((name,), ema=teacher).grads["backbone"]["image"]
        assert float(jnp.abs(image["patch_embed"]["conv"]["kernel"]).max()) > 0
        return float(max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(image["map_pool"])))

    assert moved("self_distill") > 0
    assert moved("masked_pred") == 0
