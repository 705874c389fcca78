# SPDX-License-Identifier: Apache-2.0
"""Tests of mtv_jax.nn.prompter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core.errors import UserError
from mtv_jax.nn.mlp import Mlp
from mtv_jax.nn.prompter import Prompter, encode_points

GRID, DIM, HEADS = 3, 16, 2
READINGS = pytest.mark.parametrize("reading", ["fused", "literal"])


def _made(reading: str):
    prompter = Prompter(HEADS, 4 * DIM, reading=reading)
    tokens = jax.random.normal(jax.random.key(1), (2, GRID**2, DIM))
    corners = jnp.sort(jax.random.uniform(jax.random.key(2), (2, 4, 2, 2)), axis=2)
    boxes = corners.reshape(2, 4, 4)
    params = prompter.init(jax.random.key(3), tokens, boxes, grid=GRID)
    # Away from the initial zeros and ones.
    params = jax.tree.map(
        lambda x: x + 0.05 * jax.random.normal(jax.random.key(4), x.shape), params
    )
    return prompter, params, tokens, boxes


def _layer_norm(x, weights):
    x = np.asarray(x, np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * weights["scale"] + weights["bias"]


def _one_region(params, tokens, box, reading: str):
    """The equations for one region, with a layer of its own, in float64."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])
    query, attn = p["query"], p["attn"]
    if reading == "fused":
        code = np.concatenate([encode_points(box[i : i + 2], GRID, DIM // 2) for i in (0, 2)])
        asked = _layer_norm(query + code, p["norm_query"])
        y, x = np.divmod(np.arange(GRID**2), GRID)
        centre = (np.stack([x, y], -1) + 0.5) / GRID
        places = np.tile(encode_points(jnp.asarray(centre), GRID, DIM // 2), 2)
        values = _layer_norm(tokens, p["norm_context"])
        keys = values + places
    else:
        corners = [np.asarray(encode_points(box[i : i + 2], GRID, DIM)) for i in (0, 2)]
        sequence = np.concatenate([query[None], np.stack(corners), np.asarray(tokens)])
        keys = values = _layer_norm(sequence, p["norm_context"])
        asked = keys[0]

    def head(x, name):
        return np.einsum("...d,dhe->...he", x, attn[name]["kernel"]) + attn[name]["bias"]

    logits = np.einsum("he,nhe->hn", head(asked, "query"), head(keys, "key"))
    weights = np.exp(logits / np.sqrt(DIM // HEADS))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("hn,nhe->he", weights, head(values, "value"))
    region = query + np.einsum("he,hed->d", mixed, attn["out"]["kernel"]) + attn["out"]["bias"]
    hidden = jnp.asarray(_layer_norm(region, p["norm_mlp"]), jnp.float32)
    return region + np.asarray(Mlp(4 * DIM).apply({"params": params["params"]["mlp"]}, hidden))


@READINGS
def test_14_shared_keys_and_values_equal_a_layer_per_region(reading):
    prompter, params, tokens, boxes = _made(reading)
    together = prompter.apply(params, tokens, boxes, grid=GRID)
    for image in range(2):
        for region in range(4):
            alone = _one_region(params, tokens[image], boxes[image, region], reading)
            np.testing.assert_allclose(together[image, region], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("reading", "differs"), [("fused", True), ("literal", False)])
def test_15_where_a_region_looks_depends_on_its_box(reading, differs):
    """The share of each patch among patches; in the literal reading it is the same for any box."""
    prompter, params, tokens, boxes = _made(reading)
    _, state = prompter.apply(params, tokens, boxes, grid=GRID, mutable=["intermediates"])
    weights = state["intermediates"]["attn"]["weights"][0][..., : GRID**2]
    share = weights / weights.sum(axis=-1, keepdims=True)
    apart = float(jnp.abs(share[:, :, 0] - share[:, :, 1]).max())
    assert apart > 1e-2 if differs else apart < 1e-6


def test_a_corner_at_a_patch_has_the_code_of_that_patch():
    """So that queries and keys can be compared place by place."""
    centre = jnp.array([(1 + 0.5) / GRID, (2 + 0.5) / GRID])
    sines = np.asarray(encode_points(centre, GRID, 8)).reshape(4, 2)
    np.testing.assert_allclose(sines[0], np.sin([1.0, 1e-4]), rtol=1e-5)
    np.testing.assert_allclose(sines[1], np.cos([1.0, 1e-4]), rtol=1e-5)
    np.testing.assert_allclose(sines[2], np.sin([2.0, 2e-4]), rtol=1e-5)


@READINGS
def test_regions_do_not_see_each_other(reading):
    prompter, params, tokens, boxes = _made(reading)
    before = prompter.apply(params, tokens, boxes, grid=GRID)
    after = prompter.apply(params, tokens, boxes.at[0, 1].set(0.0), grid=GRID)
    np.testing.assert_array_equal(after[0, 0], before[0, 0])
    assert float(jnp.abs(after[0, 1] - before[0, 1]).max()) > 1e-4
    alone = prompter.apply(params, tokens[1:], boxes[1:], grid=GRID)
    np.testing.assert_allclose(alone[0], before[1], rtol=1e-5, atol=1e-6)


def test_heads_divide_the_width():
    with pytest.raises(UserError, match="num_heads"):
        Prompter(5, 8).init(jax.random.key(0), jnp.zeros((1, 9, 16)), jnp.zeros((1, 4, 4)), grid=3)


@pytest.mark.parametrize(("reading", "count"), [("fused", 7_090_176), ("literal", 7_088_640)])
def test_parameters_of_the_base_size(reading, count):
    prompter = Prompter(12, 3072, reading=reading)
    shapes = jax.eval_shape(
        lambda: prompter.init(
            jax.random.key(0), jnp.zeros((1, 196, 768)), jnp.zeros((1, 4, 4)), grid=14
        )
    )
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == count
