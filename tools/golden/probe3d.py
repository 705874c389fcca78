# SPDX-License-Identifier: Apache-2.0
"""Golden values of both correspondences in `mtv_jax/evaluators/`, from Probe3D.

    python -m tools.golden.probe3d --code DIR --commit SHA --output tests/golden/probe3d.npz

DIR is a checkout of github.com/mbanani/probe3d at commit SHA; of it `compute_errors` of
evaluate_spair_correspondence.py and `estimate_correspondence_xyz` of evals/utils/correspondence.py
are run, on random features in the place of a model's. Needs PyTorch. Packages that these files
import and these functions do not use are stood in for; faiss's exact search on a GPU is an exact
search here, and what they move to a GPU stays where it is.
"""

import contextlib
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import numpy as np

from input_pipeline.eval_pairs import KeypointPair
from mtv_jax.core.errors import report_user_errors
from mtv_jax.dist.mesh import MeshConfig, make_mesh
from mtv_jax.evaluators.keypoints import best_patches, patch_errors, unit_grid
from mtv_jax.evaluators.two_view import matched, resized
from tools.golden.losses import Arrays, compare_and_store, load_module

SIDE, PATCH, DIM, KEYPOINTS, SCALE = 160, 16, 24, 40, 0.6
POINTS, MATCHES = 32, 100  # of a view along each side; of a pair
_REPOSITORY = "mbanani/probe3d"
_UNUSED = ("hydra", "hydra.utils", "loguru", "omegaconf", "tqdm", "einops", "torchvision", "faiss")
_UNUSED_PARTS = ("faiss.contrib", "faiss.contrib.torch_utils", "torchvision.transforms")


@report_user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    compare_and_store(argv, "probe3d", __doc__, run_theirs, run_ours)


def run_theirs(code: pathlib.Path) -> Arrays:
    """Their results on two images of random features.

    Returns:
        `features` [2, d, h, w]; keypoints `source` and `target` (x, y, shown) in pixels, `errors`
        of those that both images show; `points` [2, 3, side, side], the matched points `first` and
        `second` [k, 3].

    Raises:
        UserError: no such code in the folder, or no PyTorch.
    """
    with _standing_in(code):
        spair = load_module(code, "evaluate_spair_correspondence.py", _REPOSITORY)
        navi = load_module(code, "evals/utils/correspondence.py", _REPOSITORY)
        import torch

        spair.einsum = lambda x, y, how: torch.einsum(how.replace(" ", ""), x, y)
        navi.faiss_knn = lambda x, y, k: torch.cdist(x, y).topk(k, largest=False)
        generator = torch.Generator().manual_seed(0)
        grid = SIDE // PATCH
        features = torch.randn((2, DIM, grid, grid), generator=generator)
        places = torch.randint(0, SIDE, (2, KEYPOINTS, 2), generator=generator)
        shown = torch.rand((2, KEYPOINTS, 1), generator=generator) < 0.8
        source, target = torch.cat([places, shown.int()], dim=-1)
        image, mask = torch.zeros(3, SIDE, SIDE), torch.ones(1, SIDE, SIDE)
        instance = (image, mask, source, image, mask, target, SCALE, "cat")
        with mock.patch.object(torch.Tensor, "cuda", lambda tensor: tensor):
            errors, *_ = spair.compute_errors(lambda images: features, instance)
        points = torch.randn((2, 3, POINTS, POINTS), generator=generator)
        first, second, *_ = navi.estimate_correspondence_xyz(*features, *points, MATCHES)
    found = dict(features=features, source=source, target=target, errors=errors)
    found |= dict(points=points, first=first, second=second)
    return {name: value.numpy() for name, value in found.items()}


def run_ours(arrays: Arrays) -> Arrays:
    """`errors`, `first` and `second` by our functions, on what `run_theirs` returned."""
    tokens = [features.reshape(DIM, -1).T for features in arrays["features"]]
    return {"errors": _semantic(arrays, tokens), **_geometric(arrays, tokens)}


def _semantic(arrays: Arrays, tokens: Sequence[np.ndarray]) -> np.ndarray:
    first, second = map(unit_grid, tokens)
    source, target = arrays["source"], arrays["target"]
    both = (source[:, 2] * target[:, 2]) == 1
    pair = KeypointPair(
        source=0,
        target=1,
        source_points=source[both, :2] / SIDE,
        target_points=target[both, :2] / SIDE,
        scale=SCALE,
    )
    best = best_patches(first, second, pair.source_points)
    return patch_errors(len(second), pair)[best, np.arange(len(best))]


def _geometric(arrays: Arrays, tokens: Sequence[np.ndarray]) -> Arrays:
    grid = SIDE // PATCH
    features, points = [], []
    for view, view_tokens in zip(arrays["points"], tokens, strict=True):
        places = view.reshape(3, -1).T
        known = places[:, 2] > 0
        fine = resized(view_tokens.reshape(grid, grid, DIM), POINTS).reshape(-1, DIM)
        features.append(fine[known])
        points.append(places[known])
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    matches = matched(mesh, *features, MATCHES)
    return {"first": points[0][matches.first], "second": points[1][matches.second]}


@contextlib.contextmanager
def _standing_in(code: pathlib.Path) -> Iterator[None]:
    """Their folder importable, and packages that the functions do not need made up."""
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401  # before: what is imported within is forgotten with the rest
    made_up: dict[str, Any] = {name: mock.MagicMock() for name in (*_UNUSED, *_UNUSED_PARTS)}
    made_up["hydra"].main = lambda *args: lambda function: function
    paths = [str(code), *sys.path]
    with mock.patch.dict(sys.modules, made_up), mock.patch.object(sys, "path", paths):
        yield


if __name__ == "__main__":
    sys.exit(main())
