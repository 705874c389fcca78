# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest

from mtv_jax.core.errors import UserError
from mtv_jax.interop.name_map import from_hf, to_hf
from mtv_jax.models.encoder import Encoder


@pytest.fixture(scope="module")
def ours(export):
    scalars = {"logit_scale": np.float32(2.5), "logit_bias": np.float32(-9.25)}
    return {**export.params["backbone"], **scalars}


@pytest.fixture(scope="module")
def theirs(ours):
    return to_hf(ours)


def without_mask_token(tree):
    image = {k: v for k, v in tree["image"].items() if k != "mask_token"}
    return {**tree, "image": image}


def test_there_and_back_is_bit_equal(ours, theirs):
    expected = without_mask_token(ours)
    restored = from_hf(theirs, expected)
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, restored, expected)


def test_an_image_tower_alone_is_there_and_back(ours, theirs):
    image = {"image": without_mask_token(ours)["image"]}
    tensors = to_hf(image)
    assert tensors.keys() == {key for key in theirs if key.startswith("vision_model.")}
    jax.tree.map(np.testing.assert_array_equal, from_hf(tensors, image), image)


def test_every_tensor_is_contiguous_float32(theirs):
    assert all(t.flags.c_contiguous and t.dtype == np.float32 for t in theirs.values())


def test_layouts_are_torchs(ours, theirs):
    image = ours["image"]
    conv = theirs["vision_model.embeddings.patch_embedding.weight"]  # out, in, h, w
    np.testing.assert_array_equal(conv[3, 1], image["patch_embed"]["conv"]["kernel"][:, :, 1, 3])
    attn = image["blocks"]["attn"]
    q = theirs["vision_model.encoder.layers.2.self_attn.q_proj.weight"]  # out = head * width, in
    np.testing.assert_array_equal(q[32 * 1 + 5, 7], attn["query"]["kernel"][2, 7, 1, 5])
    out = theirs["vision_model.encoder.layers.2.self_attn.out_proj.weight"]
    np.testing.assert_array_equal(out[7, 32 * 1 + 5], attn["out"]["kernel"][2, 1, 5, 7])
    fused = theirs["vision_model.head.attention.in_proj_weight"]  # q, k, v, one below the other
    value = image["map_pool"]["attn"]["value"]["kernel"]
    np.testing.assert_array_equal(fused[256:], value.reshape(128, 128).T)
    assert theirs["text_model.embeddings.position_embedding.weight"].shape == (12, 128)
    assert theirs["logit_scale"].shape == theirs["logit_bias"].shape == (1,)


def test_published_sizes_have_siglips_keys():
    encoder = Encoder()
    shapes = jax.eval_shape(encoder.init, jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
    tensors = to_hf({**zeros, "logit_scale": 0.0, "logit_bias": 0.0})
    assert sum(t.size for t in tensors.values()) == 203_155_970
    assert len(tensors) == 2 * 12 * 16 + 24
    assert tensors["text_model.encoder.layers.11.mlp.fc1.weight"].shape == (3072, 768)


def test_a_parameter_without_a_row_is_an_error(ours):
    extra = {**ours, "image": {**ours["image"], "register": np.zeros(3)}}
    with pytest.raises(ValueError, match="image/register"):
        to_hf(extra)
    lacking = {**ours, "text": {k: v for k, v in ours["text"].items() if k != "head"}}
    with pytest.raises(ValueError, match="text/head/bias"):
        to_hf(lacking)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("logit_bias"), "lack logit_bias"),
        (lambda t: t.update(surplus=np.zeros(1)), "surplus"),
        (lambda t: t.update({"vision_model.head.probe": np.zeros((1, 1, 64))}), "has shape"),
    ],
)
def test_tensors_that_do_not_fit_are_named(ours, theirs, change, message):
    tensors = dict(theirs)
    change(tensors)
    with pytest.raises(UserError, match=message):
        from_hf(tensors, without_mask_token(ours))
