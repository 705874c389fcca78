# SPDX-License-Identifier: Apache-2.0
import types

import numpy as np
import pytest
from PIL import Image

import mtv_jax.interop
from input_pipeline.image_spec import SIGLIP_IMAGES
from mtv_jax.core.passes import Features
from mtv_jax.interop.trained import TrainedEncoder
from tools import extract

SIZE = 8


class FakeEncoder:
    """Pools an image to its mean colour; notes the shapes it was given."""

    encoder = types.SimpleNamespace(image_size=SIZE)
    images = SIGLIP_IMAGES
    pools = True
    squash = TrainedEncoder.squash

    def __init__(self):
        self.shapes = []

    def encode_image(self, pixels, wants):
        self.shapes.append(pixels.shape)
        tokens = pixels.reshape(len(pixels), -1, 3) if wants.tokens else None
        return Features(pooled=pixels.mean(axis=(1, 2)), tokens=tokens)


@pytest.fixture
def encoder(monkeypatch):
    fake = FakeEncoder()
    monkeypatch.setattr(mtv_jax.interop, "load", lambda directory: fake)
    return fake


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    for index in range(5):
        name = f"deep/{index}.PNG" if index % 2 else f"{index}.png"
        Image.new("RGB", (20, 10), (50 * index,) * 3).save(root / name)
    (root / "notes.txt").write_text("no image")
    return root


def run(images, tmp_path, *more):
    output = tmp_path / "features.npz"
    status = extract.main(
        ["--model", "m", "--input", str(images), "--output", str(output), "--batch", "2", *more]
    )
    return status, dict(np.load(output)) if output.exists() else {}


def test_every_image_keeps_its_features(images, tmp_path, encoder):
    status, arrays = run(images, tmp_path)
    assert status == 0
    assert arrays["names"].tolist() == ["0.png", "2.png", "4.png", "deep/1.PNG", "deep/3.PNG"]
    expected = np.array([0, 100, 200, 50, 150]) / 127.5 - 1
    np.testing.assert_allclose(arrays["pooled"][:, 0], expected, atol=1e-6)
    assert set(arrays) == {"names", "pooled", "unreadable"}
    assert set(encoder.shapes) == {(2, SIZE, SIZE, 3)}, "one shape, compiled once"


def test_tokens_on_request(images, tmp_path, encoder):
    arrays = run(images, tmp_path, "--tokens")[1]
    assert arrays["patch_tokens"].shape == (5, SIZE * SIZE, 3)


def test_unreadable_images_are_skipped_named_and_counted(images, tmp_path, encoder, capsys):
    (images / "2.png").write_bytes(b"broken")
    status, arrays = run(images, tmp_path)
    assert status == 1
    assert arrays["unreadable"].tolist() == ["2.png"]
    assert arrays["names"].tolist() == ["0.png", "4.png", "deep/1.PNG", "deep/3.PNG"]
    expected = np.array([0, 200, 50, 150]) / 127.5 - 1
    np.testing.assert_allclose(arrays["pooled"][:, 0], expected, atol=1e-6)
    errors = capsys.readouterr().err
    assert "skipped" in errors and "4 images, 1 unreadable" in errors


def test_nothing_readable_is_an_error(tmp_path, encoder, capsys):
    (tmp_path / "a.png").write_bytes(b"broken")
    assert run(tmp_path / "a.png", tmp_path)[0] == 2
    assert "none of 1 images could be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        ("nowhere", "f.npz", "does not exist"),
        ("empty", "f.npz", "no images"),
        ("images", "f.csv", "should end in .npz"),
        ("images", "nowhere/f.npz", "cannot write"),
    ],
)
def test_bad_arguments_are_one_line(images, tmp_path, encoder, capsys, inputs, output, message):
    (tmp_path / "empty").mkdir()
    argv = ["--model", "m", "--input", str(tmp_path / inputs), "--output", str(tmp_path / output)]
    assert extract.main(argv) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_folders_with_equal_names_do_not_hide_each_other(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / folder / "1.jfif", "JPEG")
    inputs = [str(tmp_path / "a"), str(tmp_path / "b")]
    found = extract.find_images(inputs)
    assert list(found) == [f"{folder}/1.jfif" for folder in inputs]


def test_pooled_vectors_that_mean_nothing_are_said(images, tmp_path, encoder, capsys):
    run(images, tmp_path)
    assert "were not trained" not in capsys.readouterr().err
    encoder.pools = False
    run(images, tmp_path)
    assert "were not trained: use --tokens" in capsys.readouterr().err
