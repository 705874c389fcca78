# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core.passes import Wants
from mtv_jax.models.blocks import Compute
from mtv_jax.models.sizes import TowerSize
from mtv_jax.models.text_tower import TextTower, text_positions

SIZE = TowerSize(embed_dim=16, num_layers=2, mlp_dim=32, num_heads=2)
TOWER = TextTower(size=SIZE, compute=Compute(), vocab_size=20, length=8, pooled_dim=12)
WANTS = Wants(embedded=True, tokens=True, pooled=True)
IDS = jnp.array([[5, 6, 7, 1, 1, 1, 1, 1], [9, 8, 7, 6, 5, 4, 3, 1]], jnp.int32)


@pytest.fixture(scope="module")
def params():
    init = functools.partial(TOWER.init, positions=range(8), wants=WANTS)
    shapes = jax.eval_shape(init, jax.random.key(0), IDS)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.array(rng.normal(0, 0.3, leaf.shape)), shapes)


@functools.cache
def compiled(tower):
    return jax.jit(tower.apply, static_argnames=("wants", "positions"))


def run(params, ids=IDS, positions=range(8), tower=TOWER):
    return compiled(tower)({"params": params}, ids, positions=tuple(positions), wants=WANTS)


def test_embeds_ids_and_positions(params):
    embedded = run(params).embedded
    expected = params["token_embed"][IDS] + params["pos_embed"]
    np.testing.assert_allclose(embedded, expected, atol=1e-6)


def test_pools_the_last_token_through_the_head(params):
    features, head = run(params), params["head"]
    expected = features.tokens[:, -1] @ head["kernel"] + head["bias"]
    assert features.pooled.shape == (2, 12)
    np.testing.assert_allclose(features.pooled, expected, atol=1e-5)


def test_is_bidirectional_and_masks_no_padding(params):
    late = run(params, IDS.at[:, -1].set(2)).tokens
    assert not np.allclose(late[:, 0], run(params).tokens[:, 0], atol=1e-4)


def test_short_texts_are_pooled_at_the_slot_they_name(params):
    short = jnp.array([[5, 6, 1]], jnp.int32)
    embedded = run(params, short, text_positions(3, 7)).embedded[0]
    rows = params["pos_embed"][0, jnp.array([0, 1, 7])]
    np.testing.assert_allclose(embedded, params["token_embed"][short[0]] + rows, atol=1e-6)


def test_leading_axes_are_folded_and_unfolded(params):
    ids = jnp.stack([IDS, IDS[::-1]], axis=1)
    np.testing.assert_allclose(run(params, ids).pooled[:, 0], run(params).pooled, atol=1e-5)
    np.testing.assert_allclose(run(params, ids[0, 0]).pooled, run(params).pooled[0], atol=1e-5)


def test_an_id_beyond_the_vocabulary_is_loud(params):
    assert np.isnan(run(params, IDS.at[0, 0].set(20)).pooled[0]).all()


def test_equal_ids_sum_their_gradients_in_float32(params):
    tower = dataclasses.replace(TOWER, compute=Compute(dtype="bfloat16"))

    def total(params):
        features = tower.apply({"params": params}, IDS, positions=range(8), wants=WANTS)
        return features.pooled.sum()

    traced = jax.make_jaxpr(jax.grad(total))(params)
    tables = [out.aval for eqn in equations(traced.jaxpr) for out in eqn.outvars]
    sums = {aval.dtype.name for aval in tables if aval.shape == params["token_embed"].shape}
    assert sums == {"float32"}


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("positions", [range(7), range(1, 9), [-1, *range(7)]])
def test_positions_that_do_not_exist_are_an_error(params, positions):
    with pytest.raises(ValueError, match="8 ids need as many positions below 8"):
        run(params, positions=positions)
