# SPDX-License-Identifier: Apache-2.0
import pytest

from mtv_jax.core.errors import UserError
from mtv_jax.models.sizes import SIZES, TowerSize, tower_size


def test_sizes_by_name():
    assert tower_size("B") == TowerSize(embed_dim=768, num_layers=12, mlp_dim=3072, num_heads=12)
    assert tower_size("So400m").mlp_dim == 4304


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_heads_divide_the_width_into_what_fused_kernels_take(size):
    assert size.embed_dim % size.num_heads == 0
    assert size.embed_dim // size.num_heads % 8 == 0


def test_a_misspelt_size_names_its_neighbour():
    with pytest.raises(
        UserError, match=r"unknown tower size 'So400' \(did you mean \"So400m\"\?\)"
    ):
        tower_size("So400")
