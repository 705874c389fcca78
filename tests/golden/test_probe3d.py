# SPDX-License-Identifier: Apache-2.0
"""Our correspondences against stored values of Probe3D's, run from its published code.

`probe3d.npz` names the commit and the command that made it.
"""

import pathlib

import numpy as np
import pytest

from tools.golden.probe3d import KEYPOINTS, MATCHES, main, run_ours


@pytest.fixture(scope="module")
def stored():
    with np.load(pathlib.Path(__file__).with_name("probe3d.npz")) as arrays:
        return dict(arrays)


def test_errors_and_matches_are_theirs(stored):
    ours = run_ours(stored)
    assert ours.keys() == {"errors", "first", "second"}
    assert KEYPOINTS / 2 < len(stored["errors"]) < KEYPOINTS
    assert stored["first"].shape == (MATCHES, 3)
    for name, values in ours.items():
        assert np.std(stored[name]) > 0.1, name
        np.testing.assert_allclose(values, stored[name], atol=1e-5, err_msg=name)


def test_a_folder_without_their_code_is_one_line(tmp_path, capsys):
    assert main(["--code", str(tmp_path), "--commit", "0"]) == 2
    error = capsys.readouterr().err
    assert "no evaluate_spair_correspondence.py; give --code" in error and error.count("\n") == 1
