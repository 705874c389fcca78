# SPDX-License-Identifier: Apache-2.0
"""Golden values of our dense head (`mtv_jax/nn/dpt.py`), by running Depth Anything V2's own.

    python -m tools.golden.depth_anything_dpt --code DIR --commit SHA \\
        --output tests/golden/depth_anything_dpt.npz

DIR is a checkout of github.com/DepthAnything/Depth-Anything-V2 at commit SHA; of it only the class
DPTHead is run, on random weights and taps. Needs PyTorch and OpenCV, not torchvision. Where we
deviate from it on purpose, their head is changed from outside: it upsamples half-pixel, to our side
instead of 14 pixels a patch, and does not end in a ReLU. All else is compared, output and gradient,
and the largest differences are printed.

In float64 as well as in float32: a ReLU input that rounds to the other side of zero moves a float32
gradient, so that at the size of DA2-Base only float64 tells a fault from rounding.
"""

import argparse
import dataclasses
import importlib
import pathlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np

from mtv_jax.core.errors import UserError, report_user_errors

BATCH = 2
# Keeps every ReLU input of the small case 1.5e-5 away from zero, ten times what rounding does: on
# another processor the stored gradient stays what it is.
SEED = 56
# Their layers and ours. Levels go from fine to coarse: i counts from 0, j from 1.
LAYERS = {
    "projects.{i}": "project{i}",
    "resize_layers.{i}": "resize{i}",
    "scratch.layer{j}_rn": "lateral{i}",
    "scratch.refinenet{j}.resConfUnit1.conv1": "lateral_residual{i}/conv1",
    "scratch.refinenet{j}.resConfUnit1.conv2": "lateral_residual{i}/conv2",
    "scratch.refinenet{j}.resConfUnit2.conv1": "residual{i}/conv1",
    "scratch.refinenet{j}.resConfUnit2.conv2": "residual{i}/conv2",
    "scratch.refinenet{j}.out_conv": "fuse{i}",
    "scratch.output_conv1": "out1",
    "scratch.output_conv2.0": "out2",
    "scratch.output_conv2.2": "out3",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A size of the head, and of its taps and map."""

    embed_dim: int
    features: int
    channels: tuple[int, int, int, int]
    grid: int
    size: int


CASES = {
    "small": Case(12, 8, (4, 6, 8, 10), grid=6, size=61),  # 48 to 61: no whole factor
    "base": Case(768, 128, (96, 192, 384, 768), grid=14, size=224),
}


@report_user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.golden.depth_anything_dpt",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--code", required=True, metavar="DIR", help="checkout of their repository")
    parser.add_argument("--commit", required=True, metavar="SHA", help="its commit, for the record")
    parser.add_argument("--size", choices=CASES, default="small", help="base: DA2-Base, not stored")
    parser.add_argument("--output", metavar="NPZ", help="where the small case is stored")
    args = parser.parse_args(argv)
    if args.output and args.size != "small":
        raise UserError(f"--size {args.size} is not stored; leave out --output")
    case = CASES[args.size]
    for dtype in ("float64", "float32"):
        arrays = run_theirs(pathlib.Path(args.code), case, dtype)
        for name, values in run_ours(case, arrays).items():
            difference, scale = np.abs(values - arrays[name]).max(), arrays[name].std()
            print(f"{args.size} {dtype} {name}: max abs {difference:.1e} (std {scale:.2g})")
    if args.output:
        flags = f"--code DIR --commit {args.commit} --output {args.output}"
        about = {"commit": args.commit, "command": f"{parser.prog} {flags}"}
        np.savez_compressed(args.output, **arrays, **about)


def run_ours(case: Case, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`output` and `gradient` of our head, in full precision, on what `run_theirs` returned."""
    import flax.traverse_util
    import jax
    import jax.numpy as jnp

    from mtv_jax.nn.dpt import DPT

    params = {path: values for path, values in arrays.items() if path.startswith("params/")}
    variables = flax.traverse_util.unflatten_dict(params, sep="/")
    head = DPT(features=case.features, channels=case.channels)

    def apply(taps: jax.Array) -> jax.Array:
        return head.apply(variables, list(taps), grid=case.grid, size=case.size)

    wide = arrays["output"].dtype == np.float64
    with jax.default_matmul_precision("highest"), jax.enable_x64(wide):
        output, pull_back = jax.vjp(apply, jnp.asarray(arrays["taps"]))
        (gradient,) = pull_back(jnp.asarray(arrays["cotangent"], output.dtype))
    return {"output": np.asarray(output), "gradient": np.asarray(gradient)}


def run_theirs(code: pathlib.Path, case: Case, dtype: str) -> dict[str, np.ndarray]:
    """Their head on random weights and taps: the same numbers whatever the `dtype`.

    Returns:
        `taps` [4, b, n, d], weights by our parameter paths, `output` [b, h, w], and `gradient`, of
        the sum of `output` times `cotangent` [b, h, w] with respect to the taps.

    Raises:
        UserError: no such code in the folder, or no PyTorch.
    """
    head = _load_head(code, case)
    import torch

    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for weight in head.parameters():
            std = weight[0].numel() ** -0.5 if weight.dim() > 1 else 0.1
            weight.normal_(std=std, generator=generator)
    shape = (4, BATCH, case.grid**2, case.embed_dim)
    taps = torch.randn(shape, generator=generator).to(getattr(torch, dtype)).requires_grad_()
    cotangent = torch.randint(-3, 4, (BATCH, case.size, case.size), generator=generator)
    with mock.patch.object(torch.nn.functional, "interpolate", _interpolate(case)):
        output = head.to(taps.dtype)([(tap,) for tap in taps], case.grid, case.grid)[:, 0]
    (output * cotangent).sum().backward()
    return {
        "taps": taps.detach().numpy(),
        "cotangent": cotangent.numpy().astype(np.int8),
        "output": output.detach().numpy(),
        "gradient": taps.grad.numpy(),
        **_our_params(head),
    }


def _load_head(code: pathlib.Path, case: Case) -> Any:
    """Their head without its last ReLU; batch norm and class token are off by default."""
    if not (code / "depth_anything_v2" / "dpt.py").is_file():
        raise UserError(
            f"{code} has no depth_anything_v2/dpt.py; "
            "give --code a checkout of github.com/DepthAnything/Depth-Anything-V2"
        )
    # Their module imports torchvision for pictures only.
    sys.modules["torchvision.transforms"] = types.SimpleNamespace(Compose=None)  # type: ignore
    sys.path.insert(0, str(code))
    try:
        import torch

        theirs = importlib.import_module("depth_anything_v2.dpt")
    except ImportError as error:
        raise UserError(
            f"their head needs PyTorch ({error}); `make test-torch` installs it"
        ) from error
    head = theirs.DPTHead(case.embed_dim, case.features, out_channels=case.channels)
    head.scratch.output_conv2[3] = torch.nn.Identity()
    return head


def _interpolate(case: Case) -> Callable[..., Any]:
    """In place of torch's: half-pixel, and to our side where theirs would be 14 pixels a patch."""
    from torch.nn.functional import interpolate

    their_side, our_side = (14 * case.grid,) * 2, (case.size,) * 2

    def half_pixel(x: Any, size: Any = None, **how: Any) -> Any:
        size = our_side if size == their_side else size
        return interpolate(x, size, **{**how, "align_corners": False})

    return half_pixel


def _our_params(head: Any) -> dict[str, np.ndarray]:
    """Weights that had a gradient, under our paths and in our layouts.

    Without one is what takes no part in their output: the first residual of the coarsest level.
    """
    layers = {
        theirs.format(i=i, j=i + 1): ours.format(i=i)
        for theirs, ours in LAYERS.items()
        for i in range(4)
    }
    used = {name: weight for name, weight in head.named_parameters() if weight.grad is not None}
    params = {}
    for name, weight in used.items():
        layer, kind = name.rsplit(".", 1)
        values = weight.detach().numpy()
        if kind == "weight" and layer in ("resize_layers.0", "resize_layers.1"):  # transposed
            values = values.transpose(0, 2, 3, 1)  # i o h w to i h w o
        elif kind == "weight":
            values = values.transpose(2, 3, 1, 0)  # o i h w to h w i o
            values = values[0, 0] if values.shape[:2] == (1, 1) else values  # ours are matrices
        params[f"params/{layers[layer]}/{'kernel' if kind == 'weight' else kind}"] = values
    return params


if __name__ == "__main__":
    sys.exit(main())
