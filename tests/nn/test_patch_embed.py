# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.nn.patch_embed import PatchEmbed


def test_is_one_linear_map_per_patch_in_row_major_order():
    module = PatchEmbed(embed_dim=5, patch_size=2)
    pixels = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    params = module.init(jax.random.key(1), pixels)
    patches = pixels.reshape(2, 2, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 12)
    conv = params["params"]["conv"]
    expected = patches @ conv["kernel"].reshape(12, 5) + conv["bias"]
    np.testing.assert_allclose(module.apply(params, pixels), expected, atol=1e-5)


def test_refuses_images_that_do_not_divide_into_patches():
    with pytest.raises(ValueError, match="5x4 pixels do not divide into patches of 2"):
        PatchEmbed(embed_dim=5, patch_size=2).init(jax.random.key(0), jnp.zeros((1, 5, 4, 3)))
