# SPDX-License-Identifier: Apache-2.0
"""Tests of mtv_jax.objectives.koleo."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from mtv_jax.nn.contrast import normalize
from mtv_jax.objectives.koleo import effective_rank, koleo_terms
from tests.arch.systems import evaluate, tiny_batch, tiny_model


def _vectors(*shape: int, seed: int = 0) -> jax.Array:
    return normalize(jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32))


def _ids(groups: int, size: int) -> jax.Array:
    return jnp.stack([jnp.arange(groups * size).reshape(groups, size)] * 3, axis=-1)


def _terms(vector, ids=None, valid=None):
    groups, size = vector.shape[:2]
    ids = _ids(groups, size) if ids is None else ids
    valid = jnp.ones((groups, size), bool) if valid is None else valid
    return koleo_terms(vector, ids, valid)


def test_equals_the_equation_in_every_group():
    vector = _vectors(3, 6, 4)
    terms = _terms(vector)
    x = np.asarray(vector, np.float64)
    distance = np.linalg.norm(x[:, :, None] - x[:, None], axis=-1) + 10 * np.eye(6)
    np.testing.assert_allclose(terms["loss"], -np.log(distance.min(axis=-1)), rtol=1e-5, atol=1e-5)
    cosine = (np.einsum("gid,gjd->gij", x, x) - 10 * np.eye(6)).max(axis=-1)
    np.testing.assert_allclose(terms["cosine"], cosine, rtol=1e-5)


def test_both_of_a_pair_are_pushed_apart():
    """The nearest neighbour is chosen without a gradient, but has one."""
    vector = normalize(jnp.array([[[1.0, 0.0], [1.0, 0.2], [-1.0, 0.1], [-1.0, -0.5]]]))
    grad = jax.grad(lambda v: _terms(v)["loss"][0, 0])(vector)
    assert float(grad[0, 0] @ (vector[0, 1] - vector[0, 0])) > 0  # descent goes the other way
    np.testing.assert_allclose(grad[0, 1], -grad[0, 0], rtol=1e-6)
    np.testing.assert_array_equal(grad[0, 2:], 0)


def test_11_finite_with_a_duplicated_image():
    """Of another record: equal pixels, equal vectors."""
    vector = _vectors(1, 5, 4).at[0, 3].set(_vectors(1, 5, 4)[0, 1])
    loss, grad = jax.value_and_grad(lambda v: _terms(v)["loss"].sum())(vector)
    chex.assert_tree_all_finite((loss, grad))
    np.testing.assert_allclose(_terms(vector)["loss"][0, 1], -np.log(1e-4), rtol=1e-3)
    assert float(jnp.abs(grad).max()) < 1e4


def test_a_record_is_no_neighbour_of_itself():
    vector = _vectors(1, 5, 4).at[0, 3].set(_vectors(1, 5, 4)[0, 1])
    ids = _ids(1, 5).at[0, 3].set(_ids(1, 5)[0, 1])
    assert float(_terms(vector, ids)["loss"].max()) < 3


def test_who_has_no_neighbour_takes_no_part():
    """Groups of one; a group with one valid sample; a group of one record only."""
    alone = _terms(_vectors(4, 1, 3))
    assert not bool(alone["has_neighbour"].any())
    chex.assert_tree_all_finite(alone)
    valid = jnp.array([[True, False, False], [True, True, False]])
    terms = _terms(_vectors(2, 3, 4), valid=valid)
    np.testing.assert_array_equal(
        terms["has_neighbour"], [[False, False, False], [True, True, False]]
    )
    same = jnp.zeros((1, 3, 3), jnp.int32)
    assert not bool(_terms(_vectors(1, 3, 4), ids=same)["has_neighbour"].any())


def test_an_invalid_sample_is_nobodys_neighbour():
    vector = _vectors(1, 4, 3).at[0, 2].set(_vectors(1, 4, 3)[0, 0])
    valid = jnp.array([[True, True, False, True]])
    assert float(_terms(vector, valid=valid)["loss"][0, 0]) < 3


def test_effective_rank_counts_directions():
    """Alike in every coordinate: as many as there are; on a line: one; all equal: none."""
    whole = jnp.ones(4096, bool)
    spread = jnp.asarray(np.random.default_rng(0).normal(size=(4096, 8)), jnp.float32)
    np.testing.assert_allclose(effective_rank(spread, whole), 8, rtol=0.02)
    line = spread[:, :1] * jnp.ones(8)
    np.testing.assert_allclose(effective_rank(line, whole), 1, rtol=1e-4)
    assert float(effective_rank(jnp.ones((4096, 8)), whole)) < 0.1
    mixed = jnp.where(whole[:, None], line, 0).at[:100].set(spread[:100] * 50)
    np.testing.assert_allclose(effective_rank(mixed, whole.at[:100].set(False)), 1, rtol=1e-4)


def test_groups_are_runs_of_the_batch():
    """Samples of one group swapped with each other change nothing, across groups they do."""
    batch = tiny_batch(tiny_model(("koleo",)))
    value = float(evaluate(("koleo",), batch).losses["koleo"])

    def swapped(i: int, j: int) -> float:
        order = np.arange(16)
        order[[i, j]] = [j, i]
        moved = jax.tree.map(lambda x: x[order], batch)
        return float(evaluate(("koleo",), moved).losses["koleo"])

    np.testing.assert_allclose(swapped(0, 3), value, rtol=1e-6)
    assert abs(swapped(0, 4) - value) > 1e-4
