# SPDX-License-Identifier: Apache-2.0
"""The one table of tower sizes; both towers read it."""

import dataclasses

from mtv_jax.core.errors import UserError, closest


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerSize:
    """Widths and depth of a transformer tower."""

    embed_dim: int
    num_layers: int
    mlp_dim: int
    num_heads: int


# "cpu" is ours, for the quick start and tests; Ti to g follow Scaling Vision Transformers
# (arXiv 2106.04560, table 2), So400m is that of arXiv 2305.13035, g-opt that of SigLIP 2's largest.
SIZES: dict[str, TowerSize] = {
    "cpu": TowerSize(embed_dim=128, num_layers=4, mlp_dim=512, num_heads=4),
    "Ti": TowerSize(embed_dim=192, num_layers=12, mlp_dim=768, num_heads=3),
    "S": TowerSize(embed_dim=384, num_layers=12, mlp_dim=1536, num_heads=6),
    "M": TowerSize(embed_dim=512, num_layers=12, mlp_dim=2048, num_heads=8),
    "B": TowerSize(embed_dim=768, num_layers=12, mlp_dim=3072, num_heads=12),
    "L": TowerSize(embed_dim=1024, num_layers=24, mlp_dim=4096, num_heads=16),
    "So400m": TowerSize(embed_dim=1152, num_layers=27, mlp_dim=4304, num_heads=16),
    "H": TowerSize(embed_dim=1280, num_layers=32, mlp_dim=5120, num_heads=16),
    "g": TowerSize(embed_dim=1408, num_layers=40, mlp_dim=6144, num_heads=16),
    "g-opt": TowerSize(embed_dim=1536, num_layers=40, mlp_dim=6144, num_heads=16),
}


def tower_size(name: str) -> TowerSize:
    """The size called `name`.

    Raises:
        UserError: no such size; the message names the nearest one.
    """
    if name not in SIZES:
        raise UserError(f"unknown tower size {name!r}{closest(name, SIZES)}")
    return SIZES[name]


def name_of_size(size: TowerSize) -> str:
    """Inverse of `tower_size`.

    Raises:
        UserError: no size has these dimensions.
    """
    for name, known in SIZES.items():
        if known == size:
            return name
    raise UserError(f"no tower size of models/sizes.py is {size}; add a line for it there")
