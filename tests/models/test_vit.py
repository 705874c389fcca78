# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core.passes import Features, Wants
from mtv_jax.models.blocks import Compute
from mtv_jax.models.sizes import TowerSize
from mtv_jax.models.vit import ImageTower

SIZE = TowerSize(embed_dim=16, num_layers=3, mlp_dim=32, num_heads=2)
TOWER = ImageTower(size=SIZE, compute=Compute(), patch_size=4, base_grid=3, has_mask_token=True)
ALL = Wants(taps=(0, 2), tapped_norm=True, embedded=True, tokens=True, last_raw=True, pooled=True)
PIXELS = jax.random.uniform(jax.random.key(0), (2, 12, 12, 3), minval=-1)
MASK = jnp.array([[1, 0, 1, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1, 0]], bool)


@pytest.fixture(scope="module")
def params():
    init = functools.partial(TOWER.init, wants=ALL)
    shapes = jax.eval_shape(init, jax.random.key(0), PIXELS)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)


@functools.cache
def compiled(tower):
    return jax.jit(tower.apply, static_argnames=("wants", "mask_mode", "num_kept"))


def run(params, pixels=PIXELS, tower=TOWER, **kwargs) -> Features:
    return compiled(tower)({"params": params}, pixels, **{"wants": ALL, **kwargs})


def layer_norm(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p["scale"] + p["bias"]


def attention(q, kv, p):
    q, k, v = (
        np.einsum("bnd,dhe->bnhe", x, p[name]["kernel"]) + p[name]["bias"]
        for name, x in (("query", q), ("key", kv), ("value", kv))
    )
    logits = np.einsum("bthe,bshe->bhts", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mixed = np.einsum("bhts,bshe->bthe", weights, v)
    return np.einsum("bthe,hed->btd", mixed, p["out"]["kernel"]) + p["out"]["bias"]


def mlp(x, p):
    x = x @ p["fc1"]["kernel"] + p["fc1"]["bias"]
    x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return x @ p["fc2"]["kernel"] + p["fc2"]["bias"]


def reference(params, pixels) -> dict:
    """SigLIP's image tower in plain NumPy."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    patches = np.asarray(pixels, np.float64).reshape(2, 3, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    conv = params["patch_embed"]["conv"]
    x = patches.reshape(2, 9, 48) @ conv["kernel"].reshape(48, 16) + conv["bias"]
    x = embedded = x + params["pos_embed"]
    outputs = []
    for index in range(SIZE.num_layers):
        block = jax.tree.map(lambda leaf, i=index: leaf[i], params["blocks"])
        y = layer_norm(x, block["norm1"])
        x = x + attention(y, y, block["attn"])
        x = x + mlp(layer_norm(x, block["norm2"]), block["mlp"])
        outputs.append(x)
    tokens, pool = layer_norm(x, params["norm"]), params["map_pool"]
    a = attention(np.repeat(pool["probe"], 2, axis=0), tokens, pool["attn"])
    pooled = (a + mlp(layer_norm(a, pool["norm"]), pool["mlp"]))[:, 0]
    return {"embedded": embedded, "outputs": outputs, "tokens": tokens, "pooled": pooled}


def test_is_siglips_tower(params):
    features, expected = run(params), reference(params, PIXELS)
    np.testing.assert_allclose(features.embedded, expected["embedded"], atol=1e-5)
    np.testing.assert_allclose(features.taps[0], expected["outputs"][0], atol=1e-5)
    np.testing.assert_allclose(features.taps[2], expected["outputs"][2], atol=2e-5)
    np.testing.assert_allclose(features.last_raw, expected["outputs"][2], atol=2e-5)
    np.testing.assert_allclose(features.tokens, expected["tokens"], atol=2e-5)
    np.testing.assert_allclose(features.taps_normed[2], expected["tokens"], atol=2e-5)
    np.testing.assert_allclose(features.pooled, expected["pooled"], atol=2e-5)


def test_only_what_is_wanted_is_returned(params):
    features = run(params, wants=Wants(taps=(1,)))
    assert list(features.taps) == [1] and not features.taps_normed
    assert len(jax.tree.leaves(features)) == 1
    assert jax.tree.leaves(run(params, wants=Wants())) == []


def test_what_else_is_wanted_changes_nothing(params):
    alone = run(params, wants=Wants(pooled=True))
    assert alone.tokens is None and alone.last_raw is None
    np.testing.assert_allclose(alone.pooled, run(params).pooled, atol=1e-6)


def test_replaced_patches_carry_mask_token_and_position(params):
    embedded = run(params, patch_mask=MASK).embedded
    expected = jnp.where(MASK[..., None], params["mask_token"], 0) + params["pos_embed"]
    np.testing.assert_allclose(embedded[MASK], expected[MASK], atol=1e-6)
    np.testing.assert_allclose(embedded[~MASK], run(params).embedded[~MASK], atol=1e-6)


def test_pixels_under_the_mask_have_no_influence(params):
    pixels = PIXELS.at[0, :4, :4].add(1.0)  # patch 0 of image 0 is masked
    for kwargs in ({"mask_mode": "replace"}, {"mask_mode": "drop", "num_kept": 6}):
        first = run(params, patch_mask=MASK, **kwargs).pooled
        np.testing.assert_array_equal(first, run(params, pixels, patch_mask=MASK, **kwargs).pooled)


def test_dropped_patches_leave_the_others_in_order(params):
    features = run(params, patch_mask=MASK, mask_mode="drop", num_kept=6)
    assert features.tokens.shape == (2, 6, 16)
    whole = run(params).embedded
    for image in range(2):
        kept = whole[image][~MASK[image]]
        np.testing.assert_allclose(features.embedded[image], kept, atol=1e-6)


def test_dropping_equals_forbidding_attention(params):
    allowed = jnp.broadcast_to(~MASK[:, None, :], (2, 9, 9))
    dropped = run(params, patch_mask=MASK, mask_mode="drop", num_kept=6).tokens
    hidden = run(params, attn_mask=allowed).tokens
    for image in range(2):
        np.testing.assert_allclose(dropped[image], hidden[image][~MASK[image]], atol=2e-5)


def test_views_are_folded_and_unfolded(params):
    views = jnp.stack([PIXELS, PIXELS[::-1], PIXELS * 0.5], axis=1)  # [b, v, h, w, 3]
    masks = jnp.stack([MASK, MASK[::-1], MASK], axis=1)
    together = run(params, views, patch_mask=masks)
    for view in range(3):
        alone = run(params, views[:, view], patch_mask=masks[:, view])
        jax.tree.map(
            lambda a, b, v=view: np.testing.assert_allclose(a[:, v], b, atol=2e-5), together, alone
        )


def test_other_grids_read_resampled_positions(params):
    features = run(params, jnp.zeros((1, 8, 20, 3)))
    assert features.tokens.shape == (1, 10, 16)
    table = params["pos_embed"].reshape(3, 3, 16)
    expected = jax.image.resize(table, (2, 5, 16), "cubic", antialias=False).reshape(1, 10, 16)
    embedded = features.embedded - params["patch_embed"]["conv"]["bias"]
    np.testing.assert_allclose(embedded, expected, atol=1e-5)


def test_bfloat16_stays_close_and_pools_in_float32(params):
    tower = dataclasses.replace(TOWER, compute=Compute(dtype="bfloat16"))
    features, expected = run(params, tower=tower), run(params)
    assert features.tokens.dtype == features.embedded.dtype == jnp.bfloat16
    assert features.pooled.dtype == jnp.float32
    cosine = jnp.sum(features.pooled * expected.pooled, -1) / (
        jnp.linalg.norm(features.pooled, axis=-1) * jnp.linalg.norm(expected.pooled, axis=-1)
    )
    assert float(cosine.min()) > 0.999


def test_mean_pooling_has_no_parameters(params):
    tower = dataclasses.replace(TOWER, pooling="mean", has_mask_token=False)
    init = functools.partial(tower.init, wants=ALL)
    fresh = jax.eval_shape(init, jax.random.key(0), PIXELS)["params"]
    assert set(params) - set(fresh) == {"map_pool", "mask_token"}
    features = run(params, tower=tower)
    np.testing.assert_allclose(features.pooled, features.tokens.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"patch_mask": MASK[:, :8]}, r"patch_mask of shape \(2, 8\), not \(2, 9\)"),
        ({"attn_mask": MASK[:, :8, None] & MASK[:, None, :8]}, r"not \(2, 9, 9\)"),
        ({"patch_mask": MASK, "mask_mode": "drop"}, "needs num_kept"),
        ({"wants": Wants(taps=(3,))}, "of a tower of 3 blocks"),
    ],
)
def test_what_cannot_be_applied_is_an_error(params, kwargs, message):
    with pytest.raises(ValueError, match=message):
        run(params, **kwargs)


def test_replacing_needs_a_mask_token(params):
    with pytest.raises(ValueError, match="has_mask_token=True"):
        run(params, tower=dataclasses.replace(TOWER, has_mask_token=False), patch_mask=MASK)
