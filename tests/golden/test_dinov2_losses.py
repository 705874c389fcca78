# SPDX-License-Identifier: Apache-2.0
"""Our prototype losses and KoLeo against stored values of DINOv2's, run from its published code.

`dinov2_losses.npz` names the commit and the command that made it; its docstring says how.
"""

import functools
import pathlib

import flax.traverse_util
import jax
import numpy as np
import pytest

from mtv_jax.nn.prototypes import ProtoHead, cross_entropy
from mtv_jax.objectives import base_prototypes
from tools.golden.dinov2_losses import DIM, HEAD, KOLEO_SIZE, main, run_ours
from tools.golden.losses import rms

# DINO's scores of two images and all their crops; 40 masked patches are then three blocks.
SMALL_BLOCK = 3000
# Near duplicates, as a share of the scale. Distances of 1e-3 of unit vectors keep four digits in
# float32, and so does the gradient, 1 / distance. In float64, with which the epsilons alone differ,
# losses are 1e-5 apart (of 7) and gradients 5e-5 of their scale.
NEAR = {"koleo_near/loss": 1e-5, "koleo_near/gradient/x": 1e-3}


@pytest.fixture(scope="module")
def stored():
    with np.load(pathlib.Path(__file__).with_name("dinov2_losses.npz")) as arrays:
        return dict(arrays)


def test_weights_of_their_head_are_our_parameters(stored):
    ours = jax.eval_shape(ProtoHead(**HEAD).init, jax.random.key(0), np.zeros((1, DIM), np.float32))
    flat = flax.traverse_util.flatten_dict(ours["params"], sep="/")
    for who in ("student", "teacher"):
        theirs = {path: x.shape for path, x in stored.items() if path.startswith(f"{who}/")}
        assert theirs == {f"{who}/{path}": x.shape for path, x in flat.items()}


@pytest.mark.parametrize("block_bytes", [None, SMALL_BLOCK])
def test_values_and_gradients_are_theirs(stored, monkeypatch, block_bytes):
    """Measured on a CPU: at most 2.4e-6, near duplicates apart."""
    if block_bytes:
        streamed = functools.partial(cross_entropy, block_bytes=block_bytes)
        monkeypatch.setattr(base_prototypes, "cross_entropy", streamed)
    ours = run_ours(stored)
    results = ("scores", "loss", "centre", "gradient")
    assert set(ours) == {path for path in stored if path.partition("/")[2].startswith(results)}
    for path, values in ours.items():
        scale = rms(stored[path])
        assert scale > 0.01, path
        atol = NEAR[path] * scale if path in NEAR else 1e-5
        np.testing.assert_allclose(values, stored[path], rtol=0, atol=atol, err_msg=path)


def test_half_of_the_patches_are_masked_and_gains_are_not_one(stored):
    mask = stored["ibot/patch_mask"]
    np.testing.assert_array_equal(mask.sum(axis=1), mask.shape[1] // 2)
    assert all(stored[f"{who}/gains"].std() > 0.2 for who in ("student", "teacher"))


def test_no_nearest_neighbour_is_in_doubt(stored):
    for name in ("koleo", "koleo_near"):
        second, first = _two_highest_cosines(stored[f"{name}/x"])
        assert (first - second).min() > 0.03
        assert (first.min() > 1 - 1e-5) == (name == "koleo_near")


def test_a_folder_without_their_code_is_one_line(tmp_path, capsys):
    assert main(["--code", str(tmp_path), "--commit", "0"]) == 2
    error = capsys.readouterr().err
    assert "no dinov2/layers/dino_head.py; give --code" in error and error.count("\n") == 1


def _two_highest_cosines(x: np.ndarray) -> np.ndarray:
    """[2, g, n]: of every vector to the second nearest of its group, and to the nearest."""
    x = x.astype(np.float64)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    cosine = np.einsum("gid,gjd->gij", x, x) - 3 * np.eye(KOLEO_SIZE)
    return np.moveaxis(np.sort(cosine, axis=-1)[..., -2:], -1, 0)
