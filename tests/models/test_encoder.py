# SPDX-License-Identifier: Apache-2.0
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core.errors import UserError
from mtv_jax.core.passes import Wants
from mtv_jax.models import sizes
from mtv_jax.models.encoder import Encoder

WIDTH, MLP, PATCH = 256, 512, 4
INIT = (  # path, kind, spread: standard deviation of a normal, limit of a uniform distribution
    (r"(norm\d?|norm)/scale", "constant", 1.0),
    (r"mlp/fc\d/bias", "normal", 1e-6),
    (r".*/bias|image/mask_token", "constant", 0.0),
    (r"image/patch_embed/conv/kernel", "normal", (1 / (PATCH * PATCH * 3)) ** 0.5),
    (r"(image|text)/pos_embed|text/token_embed", "normal", WIDTH**-0.5),
    (r"image/map_pool/probe", "uniform", (6 / (1 + WIDTH)) ** 0.5),
    (r"attn/(query|key|value|out)/kernel", "uniform", (6 / (WIDTH + WIDTH)) ** 0.5),
    (r"mlp/fc\d/kernel", "uniform", (6 / (WIDTH + MLP)) ** 0.5),
    (r"text/head/kernel", "normal", WIDTH**-0.5),
)


@pytest.fixture(autouse=True)
def small_size(monkeypatch):
    size = sizes.TowerSize(embed_dim=WIDTH, num_layers=2, mlp_dim=MLP, num_heads=4)
    narrow = sizes.TowerSize(embed_dim=64, num_layers=2, mlp_dim=128, num_heads=4)
    monkeypatch.setitem(sizes.SIZES, "small", size)
    monkeypatch.setitem(sizes.SIZES, "narrow", narrow)


def small(**changes) -> Encoder:
    defaults = {
        "image_size": 32,
        "patch_size": PATCH,
        "image_tower": "small",
        "text_tower": "small",
        "vocab_size": 50,
        "text_length": 16,
        "dtype": "float32",
    }
    return Encoder(**defaults | changes)


def paths(tree) -> dict:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(entry.key for entry in path): leaf for path, leaf in flat}


@pytest.mark.parametrize(
    ("size", "image_size", "image", "text"),
    [("B", 224, 92_884_224, 110_271_744), ("L", 256, 315_956_224, 336_194_560)],
)
def test_parameter_totals_are_those_of_the_specification(size, image_size, image, text):
    encoder = Encoder(image_size=image_size, image_tower=size, text_tower=size)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0))
    totals = {k: sum(leaf.size for leaf in jax.tree.leaves(v)) for k, v in shapes.items()}
    assert totals == {"image": image, "text": text}
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}


def test_every_parameter_is_initialised_as_specified():
    params = paths(jax.jit(small(has_mask_token=True).init)(jax.random.key(0)))
    for path, leaf in params.items():
        kind, spread = next((k, s) for r, k, s in INIT if re.search(rf"(^|/){r}$", path))
        values = np.asarray(leaf, np.float64)
        noise = 5 / values.size**0.5
        if kind == "constant":
            assert np.all(values == spread), path
        elif kind == "normal":
            assert abs(values.std() / spread - 1) < noise, path
            assert abs(values.mean()) < noise * spread, path
        else:
            assert np.abs(values).max() <= spread, path
            assert abs(values.std() / (spread / 3**0.5) - 1) < noise, path
        if kind != "constant" and "/blocks/" in path:
            assert not np.allclose(values[0], values[1], atol=1e-8), f"{path}: layers are equal"


def test_the_layout_is_independent_of_options():
    shapes = jax.eval_shape(small().init, jax.random.key(0))
    for changes in ({"scan_unroll": 2}, {"remat": "full"}, {"dtype": "bfloat16"}):
        other = jax.eval_shape(small(**changes).init, jax.random.key(0))
        assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, other)


def test_towers_read_their_own_tree():
    encoder = small(text_tower="narrow")
    params = jax.eval_shape(encoder.init, jax.random.key(0))
    wants = Wants(pooled=True, tokens=True)
    pixels, ids = jnp.zeros((2, 32, 32, 3)), jnp.ones((3, 16), jnp.int32)
    image = jax.eval_shape(lambda p: encoder.image(p, pixels, wants), {"image": params["image"]})
    text = jax.eval_shape(lambda p: encoder.text(p, ids, wants), {"text": params["text"]})
    assert image.tokens.shape == (2, encoder.grid**2, encoder.embed_dim) == (2, 64, WIDTH)
    assert image.pooled.shape == (2, WIDTH)
    assert text.tokens.shape == (3, 16, 64) and text.pooled.shape == (3, WIDTH)


def test_short_texts_are_pooled_at_the_last_position_by_default():
    encoder = small()
    shapes = jax.eval_shape(encoder.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    params["text"]["pos_embed"] += jnp.arange(16.0)[:, None]
    ids, wants = jnp.array([[3, 4, 1]], jnp.int32), Wants(embedded=True)
    embedded = encoder.text(params, ids, wants).embedded
    np.testing.assert_array_equal(embedded[0, :, 0], [0, 1, 15])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 30}, "image_size 30 is no multiple of patch_size 4"),
        ({"image_tower": "smal"}, r"unknown tower size 'smal' \(did you mean \"small\"\?\)"),
    ],
)
def test_a_bad_config_is_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        small(**changes)
