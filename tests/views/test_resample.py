# SPDX-License-Identifier: Apache-2.0
"""Tests of mtv_jax.views.resample against Pillow, of which it has the kernels."""

import io
import os
import pathlib
import tarfile

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from input_pipeline.decode import decode_image, to_canvas
from mtv_jax.views.geometry import Window
from mtv_jax.views.resample import axis_weights, cut

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("MTV_SHARED_DATA", ROOT.parent / "shared" / "data"))
PILLOW = {"linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}


def _window(x: float, y: float, w: float, h: float, flip: bool = False) -> Window:
    return Window(
        start=jnp.asarray([[x, y]], jnp.float32),
        extent=jnp.asarray([[w, h]], jnp.float32),
        flip=jnp.asarray([flip]),
    )


def _photo(height: int = 90, width: int = 120) -> np.ndarray:
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (height // 3, width // 3, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def _pillow(image: np.ndarray, window: Window, size: int, method: str) -> np.ndarray:
    """Pillow in floating point: no rounding or clipping between its two passes."""
    height, width = image.shape[:2]
    x, y = np.asarray(window.start[0])
    w, h = np.asarray(window.extent[0])
    box = (x * width, y * height, (x + w) * width, (y + h) * height)
    channels = [
        Image.fromarray(channel.astype(np.float32)).resize((size, size), PILLOW[method], box=box)
        for channel in np.moveaxis(image, -1, 0)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize("size", [16, 48, 150])
def test_equals_pillow_on_the_same_pixels(method, size):
    image, window = _photo(), _window(0.13, 0.21, 0.61, 0.55)
    ours = cut(jnp.asarray(image, jnp.float32)[None], window, size=size, method=method)
    difference = np.abs(np.asarray(ours[0]) - _pillow(image, window, size, method))
    assert difference.max() < 0.02


def test_a_flip_mirrors_what_was_cut():
    image = jnp.asarray(_photo(), jnp.float32)[None]
    plain = cut(image, _window(0.1, 0.2, 0.5, 0.6), size=32, method="cubic")
    flipped = cut(image, _window(0.1, 0.2, 0.5, 0.6, flip=True), size=32, method="cubic")
    np.testing.assert_allclose(flipped, plain[:, :, ::-1], atol=1e-3)


def test_weights_sum_to_one_and_nearest_picks():
    for method in ("linear", "cubic", "nearest"):
        weights = axis_weights(
            jnp.asarray(0.1), jnp.asarray(0.7), size_in=20, size_out=9, method=method
        )
        np.testing.assert_allclose(np.asarray(weights).sum(-1), 1.0, rtol=1e-5)
    labels = jnp.arange(16.0).reshape(1, 4, 4, 1)
    nearest = cut(labels, _window(0, 0, 1, 1), size=8, method="nearest")
    assert set(np.unique(nearest)) == set(range(16))


def test_views_of_one_image_share_their_raster():
    image = jnp.asarray(_photo(), jnp.float32)[None]
    windows = Window(
        start=jnp.asarray([[[0.0, 0.0], [0.3, 0.2]]]),
        extent=jnp.asarray([[[0.5, 0.5], [0.4, 0.6]]]),
        flip=jnp.asarray([[False, True]]),
    )
    both = cut(image, windows, size=24, method="cubic")
    for v in range(2):
        alone = Window(
            start=windows.start[:, v], extent=windows.extent[:, v], flip=windows.flip[:, v]
        )
        np.testing.assert_allclose(
            both[:, v], cut(image, alone, size=24, method="cubic"), atol=1e-3
        )


def _photos() -> list[np.ndarray]:
    if not (DATA / "labels" / "train_index.jsonl").exists():
        pytest.skip("the real photos are not here; set MTV_SHARED_DATA to their folder")
    photos: list[np.ndarray] = []
    with tarfile.open(DATA / "train" / "00003.tar") as tar:
        for member in tar:
            if member.name.endswith(".jpg") and member.size > 30_000 and len(photos) < 24:
                try:
                    image = Image.open(io.BytesIO(tar.extractfile(member).read()))
                    image.load()
                except OSError:
                    continue
                if image.mode == "RGB" and min(image.size) >= 224:
                    photos.append(np.asarray(image))
    return photos


def _gradient_energy(image: np.ndarray) -> float:
    return float(
        np.square(np.diff(image, axis=0)).mean() + np.square(np.diff(image, axis=1)).mean()
    )


def test_the_canvas_loses_almost_nothing_against_cutting_the_original():
    """Through a canvas of 2R, on real photos: mean difference ≤ 1/255, gradient energy ≥ 0.95."""
    differences, energies = [], []
    generator = np.random.default_rng(0)
    for photo in _photos():
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, "JPEG", quality=95)
        original = decode_image(buffer.getvalue())
        canvas = to_canvas(decode_image(buffer.getvalue(), min_side=224), 224)
        w, h = generator.uniform(0.65, 1.0, 2)
        window = _window(generator.uniform(0, 1 - w), generator.uniform(0, 1 - h), w, h)
        ours = cut(jnp.asarray(canvas, jnp.float32)[None], window, size=112, method="cubic")
        ours = np.clip(np.asarray(ours[0]), 0, 255)
        reference = np.clip(_pillow(original, window, 112, "cubic"), 0, 255)
        differences.append(np.abs(ours - reference).mean())
        energies.append(_gradient_energy(ours) / _gradient_energy(reference))
    print(
        f"{len(differences)} photos: difference {np.mean(differences):.2f}/255, "
        f"gradient energy {np.mean(energies):.3f}"
    )
    assert len(differences) >= 10
    assert np.mean(differences) <= 1.0 and np.mean(energies) >= 0.95
