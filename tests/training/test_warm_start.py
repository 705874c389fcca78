# SPDX-License-Identifier: Apache-2.0
"""Parameters of one model in another, and a state that starts from them."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core.errors import UserError
from mtv_jax.dist.mesh import MeshConfig, make_mesh
from mtv_jax.dist.rules import path_string
from mtv_jax.nn.pos_embed import resample_grid, resample_weights
from mtv_jax.training.warm_start import fit, resample_kernel, resample_positions
from tests.arch.systems import tiny_batch
from tests.training.test_step import step_factory

SPLIT = ((r".*/map_pool/mlp/fc1/kernel", ("fsdp",)), (r".*", "replicate"))


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _patches(side: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(32, side, side, 3)).astype(np.float32)


def _resized(patches: np.ndarray, side: int) -> np.ndarray:
    weights = resample_weights(patches.shape[1], side)
    return np.einsum("Hh,Ww,bhwc->bHWc", weights, weights, patches)


def _tokens(patches: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return np.einsum("bhwc,hwcd->bd", patches, kernel)


@pytest.mark.parametrize(("old", "new"), [(8, 12), (14, 16), (16, 32)])
def test_enlarged_patches_make_the_same_tokens(old, new):
    kernel, patches = _random(old, old, 3, 5), _patches(old)
    resized = _tokens(_resized(patches, new), resample_kernel(kernel, new))
    np.testing.assert_allclose(resized, _tokens(patches, kernel), atol=1e-4)


@pytest.mark.parametrize(("old", "new"), [(16, 8), (16, 14)])
def test_no_kernel_makes_shrunk_patches_more_alike(old, new):
    """At the least squares over white patches, the error is orthogonal to every change."""
    kernel = _random(old, old, 3, 5)
    weights = resample_weights(old, new)
    back = np.einsum("Hh,Ww,HWcd->hwcd", weights, weights, resample_kernel(kernel, new))
    gradient = np.einsum("Hh,Ww,hwcd->HWcd", weights, weights, back - kernel)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)
    assert np.abs(back - kernel).max() > 0.1, "what is lost cannot be won back"


@pytest.mark.parametrize(("base", "side"), [(4, 6), (14, 24), (6, 4)])
def test_positions_are_what_the_tower_reads_on_that_grid(base, side):
    table = _random(1, base**2, 7)
    expected = resample_grid(jnp.asarray(table), (base, base), (side, side))
    np.testing.assert_allclose(resample_positions(table, side), expected, atol=1e-5)


def _tree(**changes: np.ndarray) -> dict:
    """Parameters of a toy model, some of its leaves changed."""
    image = {
        "pos_embed": _random(1, 16, 6),
        "patch_embed": {"conv": {"kernel": _random(4, 4, 3, 6), "bias": _random(6)}},
        "norm": {"scale": changes.get("norm", _random(6)), "bias": _random(6)},
    }
    if "mask_token" in changes:
        image["mask_token"] = changes["mask_token"]
    if "pos_embed" in changes:
        image["pos_embed"] = changes["pos_embed"]
    if "kernel" in changes:
        image["patch_embed"]["conv"]["kernel"] = changes["kernel"]
    text = {"token_embed": changes.get("token_embed", _random(9, 6)), "pos_embed": _random(1, 3, 6)}
    heads = {"vl_logits": {"logit_bias": changes.get("bias", np.float32(-4.0))}}
    return {"backbone": {"image": image, "text": text}, "heads": heads}


def test_every_leaf_has_its_fate():
    source = _tree()
    source["heads"]["old"] = {"a": _random(2), "b": {"c": _random(2)}}
    wanted = _tree(
        pos_embed=_random(1, 36, 6), kernel=_random(8, 8, 3, 6), mask_token=_random(1, 6)
    )
    wanted["heads"]["depth"] = {"a": _random(2), "b": {"c": _random(2)}}
    start = fit("runs/a step 7", source, wanted)
    assert start.summary().splitlines() == [
        "init from runs/a step 7: 6 loaded, 2 resampled, 3 fresh, 2 unused",
        "resampled backbone/image/patch_embed/conv/kernel: 4 x 4 -> 8 x 8",
        "resampled backbone/image/pos_embed: 4 x 4 -> 6 x 6",
        "fresh backbone/image/mask_token",
        "fresh heads/depth",
        "unused heads/old",
    ]
    rows = [line.split("\t") for line in start.table().splitlines()[7:]]
    assert len(rows) == len(start.leaves) == 13
    assert ["unused", "heads/old/b/c", "(2,)"] in rows
    assert len(start.arrays) == 8
    kept = start.arrays["backbone/text/token_embed"]
    np.testing.assert_array_equal(kept, source["backbone"]["text"]["token_embed"])
    chex.assert_shape(start.arrays["backbone/image/pos_embed"], (1, 36, 6))
    chex.assert_shape(start.arrays["backbone/image/patch_embed/conv/kernel"], (8, 8, 3, 6))
    assert {a.dtype for a in start.arrays.values()} == {np.dtype(np.float32)}


def test_a_text_tower_may_be_fresh():
    source = _tree()
    del source["backbone"]["text"]
    assert "fresh backbone/text\n" in fit("a", source, _tree()).summary() + "\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_embed": _random(8, 6)}, "backbone/text/token_embed of shape (9, 6), this run (8,"),
        ({"norm": _random(5)}, "backbone/image/norm/scale of shape (6,), this run (5,); only"),
        ({"pos_embed": _random(1, 36, 5)}, "use the source's model.* settings"),
        ({"kernel": _random(8, 8, 4, 6)}, "use the source's model.* settings"),
        ({"bias": _random(2)}, "use the source's objectives.* settings"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_another_model_is_one_line(changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        fit("a", _tree(), _tree(**changes))


def test_an_image_tower_is_taken_whole():
    source = _tree()
    del source["backbone"]["image"]["norm"]["scale"]
    with pytest.raises(UserError, match="a lacks backbone/image/norm/scale"):
        fit("a", source, _tree())
    del source["backbone"]["image"]
    with pytest.raises(UserError, match="a lacks backbone/image/"):
        fit("a", source, _tree())


def test_a_sharded_state_starts_from_given_parameters():
    """Bit for bit; the teacher is their copy, the rest as in a state born by chance."""
    factory = step_factory()
    mesh, batch = make_mesh(MeshConfig(data=2, fsdp=4)), tiny_batch(factory.model)
    with jax.set_mesh(mesh):
        abstract = factory.abstract(mesh, batch, SPLIT)
        chance = factory.create(0, batch, abstract)
        rng = np.random.default_rng(0)
        given = {
            path_string(path): rng.normal(size=leaf.shape).astype(np.float32)
            for path, leaf in jax.tree_util.tree_leaves_with_path(chance.params)
            if "mixture" not in path_string(path)
        }
        state = factory.create(0, batch, abstract, given)
    expected = jax.tree_util.tree_map_with_path(
        lambda path, fresh: given.get(path_string(path), fresh), jax.device_get(chance.params)
    )
    chex.assert_trees_all_equal(jax.device_get(state.params), expected)
    teacher = jax.tree.leaves(state.ema["backbone"]["image"])
    chex.assert_trees_all_equal(teacher, jax.tree.leaves(state.params["backbone"]["image"]))
    for name in ("step", "position", "opt", "slots"):
        one, other = jax.device_get((getattr(state, name), getattr(chance, name)))
        chex.assert_trees_all_equal(one, other)
    assert jax.tree.map(lambda a: a.sharding, state) == jax.tree.map(lambda a: a.sharding, abstract)
    kernel = state.params["backbone"]["image"]["map_pool"]["mlp"]["fc1"]["kernel"]
    assert not kernel.sharding.is_fully_replicated
