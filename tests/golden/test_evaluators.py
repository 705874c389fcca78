# SPDX-License-Identifier: Apache-2.0
"""Our measures and probes against stored values of published code.

Each `.npz` names the commit and the command that made it.
"""

import pathlib

import numpy as np
import pytest

from tools.golden import depth_anything_metric, dinov2_depth, mmseg_iou

SCRIPTS = {
    "depth_anything_metric": depth_anything_metric,
    "dinov2_depth": dinov2_depth,
    "mmseg_iou": mmseg_iou,
}


@pytest.fixture
def stored(request):
    with np.load(pathlib.Path(__file__).with_name(f"{request.param}.npz")) as arrays:
        return dict(arrays)


@pytest.mark.parametrize(
    ("name", "stored", "results"),
    [
        (
            "depth_anything_metric",
            "depth_anything_metric",
            {"rmse", "absrel", "delta1", "relative", "relative_in_depth"},
        ),
        ("dinov2_depth", "dinov2_depth", {"depth", "loss", "loss_at_first"}),
        ("mmseg_iou", "mmseg_iou", {"miou", "accuracy"}),
    ],
    indirect=["stored"],
)
def test_results_are_theirs(name, stored, results):
    ours = SCRIPTS[name].run_ours(stored)
    assert ours.keys() == results
    for key, values in ours.items():
        assert np.abs(stored[key]).max() > 0.05, key
        np.testing.assert_allclose(values, stored[key], rtol=2e-6, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("stored", ["dinov2_depth"], indirect=True)
def test_dinov2s_gradient_loss_compares_images_and_vanishes_for_two(stored):
    """Why the depth probe has none: differences along the batch say nothing of an image."""
    assert stored["gradient_of_two"] == 0
    assert stored["gradient_of_four"] > 0.1


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_folder_without_their_code_is_one_line(name, tmp_path, capsys):
    assert SCRIPTS[name].main(["--code", str(tmp_path), "--commit", "0"]) == 2
    error = capsys.readouterr().err
    assert "give --code" in error and error.count("\n") == 1
