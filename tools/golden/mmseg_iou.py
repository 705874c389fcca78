# SPDX-License-Identifier: Apache-2.0
"""Golden values of our mean IoU (`mtv_jax/evaluators/seg_probe.py`), from mmsegmentation's.

    python -m tools.golden.mmseg_iou --code DIR --commit VERSION --output tests/golden/mmseg_iou.npz

DIR holds mmsegmentation VERSION (0.x; a checkout, or the unpacked wheel); of
mmseg/core/evaluation/metrics.py `mean_iou` is run on random segments. Needs PyTorch; mmcv, which
only reads files there, is stood in for.
"""

import pathlib
import sys
from collections.abc import Sequence
from unittest import mock

import numpy as np

from input_pipeline.eval_data import IGNORED
from mtv_jax.core.errors import report_user_errors
from mtv_jax.evaluators.seg_probe import confusion, mean_iou
from tools.golden.losses import Arrays, compare_and_store, load_module

CLASSES, IMAGES, SIDE = 7, 5, 12  # the last class is nowhere, the one before is only found
_FILE = "mmseg/core/evaluation/metrics.py"


@report_user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    compare_and_store(argv, "mmseg_iou", __doc__, run_theirs, run_ours)


def run_theirs(code: pathlib.Path) -> Arrays:
    """Their results.

    Returns:
        Inputs `found` and `truth` [images, h, w]; results `miou` and `accuracy`.

    Raises:
        UserError: no such code in the folder, or no PyTorch.
    """
    with mock.patch.dict(sys.modules, {"mmcv": mock.MagicMock()}):
        theirs = load_module(code, _FILE, "open-mmlab/mmsegmentation")
    rng = np.random.default_rng(0)
    truth = rng.integers(0, CLASSES - 2, (IMAGES, SIDE, SIDE)).astype(np.uint8)
    found = np.where(
        rng.random(truth.shape) < 0.6, truth, rng.integers(0, CLASSES - 1, truth.shape)
    )
    truth[rng.random(truth.shape) < 0.1] = IGNORED
    numbers = theirs.mean_iou(list(found), list(truth), CLASSES, IGNORED)
    results = dict(miou=np.nanmean(numbers["IoU"]), accuracy=numbers["aAcc"])
    return dict(found=found, truth=truth, **results)


def run_ours(arrays: Arrays) -> Arrays:
    """`miou` and `accuracy` by our functions, on what `run_theirs` returned."""
    pairs = zip(arrays["found"], arrays["truth"], strict=True)
    total = np.sum([confusion(found, truth, CLASSES) for found, truth in pairs], axis=0)
    return {"miou": np.asarray(mean_iou(total)), "accuracy": total.trace() / total.sum()}


if __name__ == "__main__":
    sys.exit(main())
