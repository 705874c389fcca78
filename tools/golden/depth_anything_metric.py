# SPDX-License-Identifier: Apache-2.0
"""Golden values of our depth errors, from Depth Anything's metric.

    python -m tools.golden.depth_anything_metric --code DIR --commit SHA \\
        --output tests/golden/depth_anything_metric.npz

DIR is a checkout of github.com/DepthAnything/Depth-Anything-V2 at commit SHA; of
metric_depth/util/metric.py `eval_depth` is run on random depths, and on disparities after numpy's
own least-squares fit. Ours are `depth_errors` of mtv_jax/evaluators/depth_probe.py and `absrel` of
relative_depth.py. Needs PyTorch.
"""

import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from mtv_jax.core.errors import report_user_errors
from mtv_jax.evaluators.depth_probe import depth_errors
from mtv_jax.evaluators.relative_depth import absrel, absrel_of_depth
from tools.golden.losses import Arrays, compare_and_store, load_module

SIDE, FARTHEST = (24, 32), 10.0
_NAMES = {"d1": "delta1", "abs_rel": "absrel", "rmse": "rmse"}


@report_user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    compare_and_store(argv, "depth_anything_metric", __doc__, run_theirs, run_ours)


def run_theirs(code: pathlib.Path) -> Arrays:
    """Their results.

    Returns:
        Inputs `metres` and `disparity` (of any scale) predicted, and `truth` in metres, 0 where
        unknown, all [h, w]; results `delta1`, `absrel` and `rmse` of the metres,
        `relative` and `relative_in_depth` of the disparity after its fit.

    Raises:
        UserError: no such code in the folder, or no PyTorch.
    """
    theirs = load_module(code, "metric_depth/util/metric.py", "DepthAnything/Depth-Anything-V2")
    import torch

    rng = np.random.default_rng(0)
    truth = rng.uniform(0.5, 9.5, SIDE)
    metres = truth * np.exp(rng.normal(0, 0.2, SIDE))
    disparity = 7 / truth + rng.normal(0, 0.8, SIDE) + 40
    known = rng.random(SIDE) < 0.7
    truth[~known] = 0.0

    def measured(prediction: np.ndarray, target: np.ndarray) -> dict[str, float]:
        return theirs.eval_depth(torch.from_numpy(prediction), torch.from_numpy(target))

    errors = measured(metres[known], truth[known])
    inverse = 1 / truth[known]
    columns = np.stack([disparity[known], np.ones(known.sum())], axis=1)
    fit = columns @ np.linalg.lstsq(columns, inverse, rcond=None)[0]
    relative = measured(fit, inverse)["abs_rel"]
    in_depth = measured(1 / np.maximum(fit, 1 / FARTHEST), truth[known])["abs_rel"]
    results = {ours: errors[name] for name, ours in _NAMES.items()}
    results |= dict(relative=relative, relative_in_depth=in_depth)
    inputs = dict(metres=metres, disparity=disparity, truth=truth)
    return inputs | {name: np.asarray(value) for name, value in results.items()}


def run_ours(arrays: Arrays) -> Arrays:
    """The same results by our functions, on what `run_theirs` returned."""
    truth, disparity = arrays["truth"], arrays["disparity"]
    inverse = np.divide(1.0, truth, out=np.zeros_like(truth), where=truth > 0)
    errors = {
        **depth_errors(arrays["metres"], truth),
        "relative": absrel(disparity, inverse),
        "relative_in_depth": absrel_of_depth(disparity, inverse, farthest=FARTHEST),
    }
    return {name: np.asarray(value) for name, value in errors.items()}


if __name__ == "__main__":
    sys.exit(main())
