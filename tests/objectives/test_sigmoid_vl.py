# SPDX-License-Identifier: Apache-2.0
"""Tests of mtv_jax.objectives.sigmoid_vl."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.dist.mesh import MeshConfig, make_mesh, put_batch
from mtv_jax.nn.contrast import blind_loss, normalize
from mtv_jax.objectives.sigmoid_vl import sigmoid_rows

SCALARS = {"logit_scale": jnp.log(10.0), "logit_bias": jnp.asarray(-10.0)}


def _vectors(count: int, dim: int, seed: int = 0) -> dict:
    generator = np.random.default_rng(seed)
    image, text = generator.normal(size=(2, count, dim)).astype(np.float32)
    unit = {"image": normalize(jnp.asarray(image)), "text": normalize(jnp.asarray(text))}
    return {**unit, "valid": jnp.ones(count, bool)}


def _mean(rows: dict, chunk: int = 64, **scalars) -> jax.Array:
    values = sigmoid_rows(**rows, **{**SCALARS, **scalars}, chunk=chunk)
    return jnp.sum(jnp.where(rows["valid"], values["loss"], 0)) / rows["valid"].sum()


def _plain(image, text, scale, bias) -> float:
    """Equation 1, one pair at a time, in float64."""
    image, text = np.asarray(image, np.float64), np.asarray(text, np.float64)
    logits = np.exp(scale) * image @ text.T + bias
    signs = 2 * np.eye(len(image)) - 1
    return float(np.log1p(np.exp(-signs * logits)).sum() / len(image))


def test_4_initial_loss_on_random_unit_vectors():
    loss = jax.jit(lambda rows: _mean(rows, chunk=512))(_vectors(4096, 768))
    assert abs(float(loss) - 10.186) < 0.02


def test_equals_the_equation():
    rows = _vectors(24, 16)
    scale, bias = math.log(7.0), -3.0
    expected = _plain(rows["image"], rows["text"], scale, bias)
    actual = _mean(rows, logit_scale=jnp.asarray(scale), logit_bias=jnp.asarray(bias))
    np.testing.assert_allclose(float(actual), expected, rtol=1e-6)


@pytest.mark.parametrize("chunk", [1, 5, 8, 1000])
def test_chunks_change_neither_value_nor_gradient(chunk):
    rows = _vectors(24, 16)
    image = rows.pop("image")
    whole = jax.value_and_grad(lambda v: _mean({**rows, "image": v}, chunk=24))(image)
    parts = jax.value_and_grad(lambda v: _mean({**rows, "image": v}, chunk=chunk))(image)
    chex.assert_trees_all_close(whole, parts, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(8, 1), (2, 4)], ids=["data8", "data2-fsdp4"])
def test_5_sharded_equals_single_device(shape):
    rows = _vectors(32, 16)
    valid = rows.pop("valid").at[5].set(False)

    def value(v, scalars):
        return _mean({**v, "valid": valid}, chunk=2, **scalars)

    one = jax.value_and_grad(value, argnums=(0, 1))(rows, SCALARS)
    mesh = make_mesh(MeshConfig(data=shape[0], fsdp=shape[1]))
    with jax.set_mesh(mesh):
        sharded = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))(
            put_batch(mesh, 32, jax.device_get(rows)), SCALARS
        )
    chex.assert_trees_all_close(one, jax.device_get(sharded), atol=1e-5)


def test_6_permuting_pairs_together_changes_nothing():
    rows = _vectors(16, 8)
    order = np.random.default_rng(1).permutation(16)
    permuted = {k: v[order] for k, v in rows.items()}
    np.testing.assert_allclose(float(_mean(rows)), float(_mean(permuted)), rtol=1e-6)
    swapped = {**rows, "text": rows["text"][order]}
    assert abs(float(_mean(rows)) - float(_mean(swapped))) > 1e-3


def test_an_invalid_pair_leaves_as_row_and_as_column():
    rows = _vectors(16, 8)
    rows["valid"] = rows["valid"].at[jnp.asarray([3, 9])].set(False)
    kept = {k: v[rows["valid"]] for k, v in rows.items()}
    np.testing.assert_allclose(float(_mean(rows)), float(_mean(kept)), rtol=1e-6)


def test_hit_counts_ties_against():
    image = jnp.asarray([[1, 0], [0, 1], [1, 0]], jnp.float32)
    values = sigmoid_rows(image=image, text=image, valid=jnp.ones(3, bool), **SCALARS, chunk=3)
    np.testing.assert_array_equal(values["hit"], [0.0, 1.0, 0.0])


def test_normalize_has_a_finite_gradient_at_zero():
    gradient = jax.grad(lambda x: normalize(x).sum())(jnp.zeros((2, 4)))
    chex.assert_tree_all_finite(gradient)
    np.testing.assert_allclose(np.asarray(normalize(jnp.full((1, 4), 5.0))), 0.5, rtol=1e-6)


def test_blind_loss_is_the_best_a_bias_can_do():
    count = 128
    biases = np.linspace(-12, 3, 30001)
    losses = np.log1p(np.exp(-biases)) + (count - 1) * np.log1p(np.exp(biases))
    np.testing.assert_allclose(float(blind_loss(jnp.asarray(count))), losses.min(), rtol=1e-5)
    assert abs(losses.min() - (math.log(count) + 1)) < 0.01
