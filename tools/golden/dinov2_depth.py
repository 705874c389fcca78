# SPDX-License-Identifier: Apache-2.0
"""Golden values of our depth probe (`mtv_jax/evaluators/depth_probe.py`), from DINOv2's own.

    python -m tools.golden.dinov2_depth --code DIR --commit SHA \\
        --output tests/golden/dinov2_depth.npz

DIR is a checkout of github.com/facebookresearch/dinov2 at commit SHA; of dinov2/eval/depth/models
the linear head and both losses are run on random features and depths. Needs PyTorch; mmcv, of
which they use a base class and decorators, is stood in for.
"""

import contextlib
import importlib
import pathlib
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np

from mtv_jax.core.errors import UserError, report_user_errors
from mtv_jax.core.passes import Features
from mtv_jax.evaluators.depth_probe import DepthHead, log_depth_loss
from tools.golden.losses import Arrays, compare_and_store

GRID, DIM, BINS, NEAREST, FARTHEST, SIDE = (5, 6), 16, 24, 1e-3, 10.0, (40, 48)
_REPOSITORY, _FOLDER = "facebookresearch/dinov2", "dinov2/eval/depth"


@report_user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    compare_and_store(argv, "dinov2_depth", __doc__, run_theirs, run_ours)


def run_theirs(code: pathlib.Path) -> Arrays:
    """Their results on two images of random features.

    Returns:
        Inputs `tokens` [2, d, h, w], `pooled` [2, d], `truth` [2, H, W] with unknown pixels, the
        head's `kernel` [bins, 2 d] and `bias`; results `depth` [2, 4 h, 4 w], `loss` and
        `loss_at_first` of the first steps, `gradient_of_two` and `gradient_of_four`: their gradient
        loss on two and on four images, each a copy of the one before but for its scale.

    Raises:
        UserError: no such code in the folder, or no PyTorch.
    """
    if not (code / _FOLDER).is_dir():
        raise UserError(f"{code} has no {_FOLDER}; give --code a checkout of {_REPOSITORY}")
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{error}; `make test-torch` installs it") from error

    with _importable(code / _FOLDER):
        head_class = importlib.import_module("theirs.models.decode_heads.linear_head").BNHead
        sig_loss = importlib.import_module("theirs.models.losses.sigloss").SigLoss
        gradient_loss = importlib.import_module("theirs.models.losses.gradientloss").GradientLoss
    torch.manual_seed(0)
    head = head_class(
        input_transform="resize_concat",
        in_index=(0,),
        upsample=4,
        in_channels=[DIM],
        channels=2 * DIM,
        classify=True,
        n_bins=BINS,
        min_depth=NEAREST,
        max_depth=FARTHEST,
        loss_decode=[],
    )
    tokens, pooled = torch.randn(2, DIM, *GRID), torch.randn(2, DIM)
    truth = torch.rand(2, 1, *SIDE) * 8 + 0.5
    truth[torch.rand(truth.shape) < 0.3] = 0.0
    with torch.no_grad():
        depth = head([(tokens, pooled)])
        large = torch.nn.functional.interpolate(depth, SIDE, mode="bilinear", align_corners=False)
        both = {
            "loss": sig_loss()(large, truth),
            "loss_at_first": sig_loss(warm_up=True)(large, truth),
            "gradient_of_two": gradient_loss()(large, truth),
            "gradient_of_four": gradient_loss()(
                torch.cat([large, large * 2]), torch.cat([truth, truth])
            ),
        }
    weights = {"kernel": head.conv_depth.weight[..., 0, 0], "bias": head.conv_depth.bias}
    found = dict(tokens=tokens, pooled=pooled, truth=truth[:, 0], depth=depth[:, 0])
    return {name: value.detach().numpy() for name, value in (found | weights | both).items()}


def run_ours(arrays: Arrays) -> Arrays:
    """`depth`, `loss` and `loss_at_first` by our functions, on what `run_theirs` returned."""
    tokens = jnp.asarray(arrays["tokens"]).reshape(2, DIM, -1).swapaxes(1, 2)
    features = Features(last_raw=tokens, pooled=jnp.asarray(arrays["pooled"]))
    head = DepthHead(nearest=NEAREST, farthest=FARTHEST, bins=BINS)
    dense = {"kernel": arrays["kernel"].T, "bias": arrays["bias"]}
    valid = jnp.ones(2, bool)
    depth: Any = head.apply({"params": {"Dense_0": dense}}, features, GRID, valid)
    truth = jnp.asarray(arrays["truth"])
    losses = {
        name: np.asarray(log_depth_loss(depth, truth, valid, jnp.asarray(step)))
        for name, step in (("loss", 1000), ("loss_at_first", 0))
    }
    return {"depth": np.asarray(depth), **losses}


@contextlib.contextmanager
def _importable(folder: pathlib.Path) -> Iterator[None]:
    """Their files as a package `theirs`, without its `__init__.py` and builder."""
    import torch

    def kept(*args: Any, **kwargs: Any) -> Any:
        del args, kwargs
        return lambda thing: thing

    register = types.SimpleNamespace(register_module=kept)
    made_up: dict[str, Any] = {
        "mmcv": mock.MagicMock(),
        "mmcv.runner": mock.MagicMock(BaseModule=torch.nn.Module, auto_fp16=kept, force_fp32=kept),
        "theirs.models.builder": mock.MagicMock(HEADS=register, LOSSES=register),
    }
    for name, part in {
        "theirs": "",
        "theirs.models": "models",
        "theirs.models.decode_heads": "models/decode_heads",
        "theirs.models.losses": "models/losses",
    }.items():
        made_up[name] = types.ModuleType(name)
        made_up[name].__path__ = [str(folder / part)]
    with mock.patch.dict(sys.modules, made_up):
        yield


if __name__ == "__main__":
    sys.exit(main())
