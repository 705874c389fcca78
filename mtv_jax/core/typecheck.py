# SPDX-License-Identifier: Apache-2.0
"""Shape annotations as run-time checks: on in tests and in `--dry_run`, off in training."""

import importlib.util

# Not the modules whose dataclasses also carry shapes, stacks and Nones through tree.map.
_MODULES = (
    "core.masking",
    "core.rng",
    "core.schedules",
    "dist",
    "interop",
    "models",
    "nn",
    "objectives.sigmoid_vl",
    "training.ema",
    "training.optim",
    "training.step",
    "views.geometry",
    "views.resample",
)


def check_shapes() -> bool:
    """Checks jaxtyping annotations of modules imported from now on; False without beartype."""
    if importlib.util.find_spec("beartype") is None:
        return False
    from jaxtyping import install_import_hook

    install_import_hook([f"mtv_jax.{name}" for name in _MODULES], "beartype.beartype")
    return True
