# SPDX-License-Identifier: Apache-2.0
"""Our sigmoid contrast against stored values of OpenCLIP's, run from its published code.

`open_clip_sigmoid.npz` names the commit and the command that made it.
"""

import pathlib

import numpy as np
import pytest

from tools.golden.losses import rms
from tools.golden.open_clip_sigmoid import BATCH, main, run_ours


@pytest.fixture(scope="module")
def stored():
    with np.load(pathlib.Path(__file__).with_name("open_clip_sigmoid.npz")) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("chunk", [2, BATCH])
def test_loss_and_gradients_are_theirs(stored, chunk):
    """Measured on a CPU: 1.4e-6 on the loss, 1.2e-7 on the gradients."""
    ours = run_ours(stored, chunk=chunk)
    assert {"loss", *(path for path in stored if path.startswith("gradient/"))} == set(ours)
    for path, values in ours.items():
        assert rms(stored[path]) > 0.01, path
        np.testing.assert_allclose(values, stored[path], rtol=0, atol=1e-5, err_msg=path)


def test_a_folder_without_their_code_is_one_line(tmp_path, capsys):
    assert main(["--code", str(tmp_path), "--commit", "0"]) == 2
    error = capsys.readouterr().err
    assert "no src/open_clip/loss.py; give --code" in error and error.count("\n") == 1
