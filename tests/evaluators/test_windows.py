# SPDX-License-Identifier: Apache-2.0
"""Sliding windows, and the two matrices in the place of resizing back and forth."""

import numpy as np
import pytest

from input_pipeline.crops import GRAY
from mtv_jax.evaluators.base_resample import bilinear_weights
from mtv_jax.evaluators.base_windows import Windows


def test_bilinear_weights():
    np.testing.assert_allclose(bilinear_weights(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    np.testing.assert_allclose(bilinear_weights(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_allclose(bilinear_weights(1, 3), np.ones((3, 1)))
    np.testing.assert_allclose(bilinear_weights(5, 5), np.eye(5), atol=1e-6)
    np.testing.assert_allclose(bilinear_weights(7, 31).sum(axis=1), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "size", "tops", "lefts"),
    [
        ((100, 100), (24, 24), (0,), (0,)),
        ((100, 200), (24, 48), (0,), (0, 16, 24)),
        ((300, 100), (72, 24), (0, 16, 32, 48), (0,)),
        ((12, 14), (24, 28), (0,), (0, 4)),
        ((10, 100), (10, 96), (0,), (0, 16, 32, 48, 64, 72)),
    ],
)
def test_windows_cover_the_image(shape, size, tops, lefts):
    windows = Windows.over(shape, 24, 16)
    assert (windows.size, windows.tops, windows.lefts) == (size, tops, lefts)
    assert windows.count == len(tops) * len(lefts)


def test_windows_are_cut_where_they_are_and_filled_up():
    windows = Windows.over((10, 100), 24, 16)
    image = np.arange(10 * 96 * 3, dtype=np.uint32).reshape(10, 96, 3).astype(np.uint8)
    last = windows.cut(image, 5)
    assert (last[:10] == image[:, 72:]).all() and (last[10:] == GRAY).all()
    assert (windows.cut(image, 2)[:10] == image[:, 32:56]).all()


def step_by_step(windows: Windows, logits: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Logits of windows to pixels, added up, divided by how many there are, resized."""
    grid = logits.shape[1]
    total = np.zeros((*windows.size, logits.shape[-1]))
    counts = np.zeros((*windows.size, 1))
    up = bilinear_weights(grid, windows.side)
    for index, of_window in enumerate(logits):
        row, column = divmod(index, len(windows.lefts))
        top, left = windows.tops[row], windows.lefts[column]
        large = np.einsum("Yy,Xx,yxc->YXc", up, up, of_window)
        place = slice(top, top + windows.side), slice(left, left + windows.side)
        inside = total[place].shape
        total[place] += large[: inside[0], : inside[1]]
        counts[place] += 1
    rows, columns = (bilinear_weights(a, b) for a, b in zip(windows.size, shape, strict=True))
    return np.einsum("Yy,Xx,yxc->YXc", rows, columns, total / counts)


@pytest.mark.parametrize("shape", [(50, 50), (129, 37), (37, 131), (12, 90)])
def test_classes_are_those_of_doing_it_step_by_step(shape):
    windows = Windows.over(shape, 24, 16)
    logits = np.random.default_rng(0).normal(size=(windows.count, 4, 4, 5)).astype(np.float32)
    expected = step_by_step(windows, logits, shape)
    found = windows.classes(logits, shape)
    assert found.shape == shape and len(np.unique(found)) == 5
    ranked = np.sort(expected, axis=-1)
    clear = ranked[..., -1] - ranked[..., -2] > 1e-4
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(found[clear], expected.argmax(-1)[clear])
    weights = windows._weights(windows.tops, 4, windows.size[0], shape[0])
    assert weights.dtype == np.float32, "the logits of large images take minutes, not hours"
