# SPDX-License-Identifier: Apache-2.0
"""Our dense head against stored values of Depth Anything V2's, run from its published code.

`depth_anything_dpt.npz` names the commit and the command that made it; its docstring says how.
"""

import pathlib

import flax.traverse_util
import jax
import numpy as np
import pytest

from mtv_jax.nn.dpt import DPT
from tools.golden.depth_anything_dpt import CASES, main, run_ours

SMALL = CASES["small"]


@pytest.fixture(scope="module")
def stored():
    with np.load(pathlib.Path(__file__).with_name("depth_anything_dpt.npz")) as arrays:
        return dict(arrays)


def test_weights_of_theirs_that_get_a_gradient_are_our_parameters(stored):
    head = DPT(features=SMALL.features, channels=SMALL.channels)
    ours = jax.eval_shape(
        lambda taps: head.init(jax.random.key(0), list(taps), grid=SMALL.grid, size=SMALL.size),
        stored["taps"],
    )
    flat = flax.traverse_util.flatten_dict(ours, sep="/")
    theirs = {path: x.shape for path, x in stored.items() if path.startswith("params/")}
    assert theirs == {path: x.shape for path, x in flat.items()}


def test_output_and_gradient_are_theirs(stored):
    """Measured on a CPU: 1e-6 on the output, 5e-6 on the gradient."""
    for name, ours in run_ours(SMALL, stored).items():
        assert stored[name].std() > 0.1
        np.testing.assert_allclose(ours, stored[name], rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "no depth_anything_v2/dpt.py"),
        (("--size", "base", "--output", "x.npz"), "--size base is not stored"),
    ],
)
def test_bad_command_lines_are_one_line(tmp_path, capsys, flags, message):
    assert main(["--code", str(tmp_path), "--commit", "0", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
