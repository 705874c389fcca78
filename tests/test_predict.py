# SPDX-License-Identifier: Apache-2.0
"""Pictures of what a model sees: what is drawn, and what is refused."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from mtv_jax import predict
from mtv_jax.core.errors import UserError
from mtv_jax.interop.trained import TrainedEncoder, unit
from mtv_jax.predict import Captions, Components, pictures


def _image(path: pathlib.Path, width: int, height: int, mode: str = "RGB") -> pathlib.Path:
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture(scope="module")
def model(world) -> TrainedEncoder:
    """Random towers and a random depth head."""
    import jax

    from mtv_jax.assemble import System
    from tests.tools.tiny import tiny_config

    system = System(tiny_config(world, tasks="vl+depth"), devices=jax.devices()[:1])
    return TrainedEncoder(
        encoder=system.model.encoder,
        params=jax.device_get(system.init_state().params),
        objectives={o.name: o for o in system.model.objectives if o.name == "depth"},
        tokenizer=system.tokenizer,
    )


def test_a_picture_an_image_whatever_its_shape(model, tmp_path, capsys):
    paths = [
        _image(tmp_path / "wide.png", 80, 40),
        _image(tmp_path / "grey.png", 30, 30, "L"),
        _image(tmp_path / "thin.png", 4, 400),
        tmp_path / "gone.png",
    ]
    drawn = dict(pictures(model, paths, None))
    assert list(drawn) == paths[:3] and "skipped" in capsys.readouterr().err
    wide = drawn[paths[0]]
    assert wide.height == 128 + 15 + 8 and wide.width == 3 * 256 + 2 * 8  # image, depth, features


def test_captions_are_the_nearest_first(model, tmp_path):
    path = _image(tmp_path / "a.png", 40, 40)
    vectors = unit(np.random.default_rng(0).normal(size=(20, model.encoder.embed_dim)))
    pooled = model.image_features([path])[0]
    vectors[13] = pooled / np.linalg.norm(pooled)
    captions = Captions(texts=[f"text {k}" for k in range(20)], vectors=vectors)
    lines = predict._best(pooled, captions)
    assert lines[0] == "1.00 text 13" and len(lines) == 5
    values = [float(line.split()[0]) for line in lines]
    assert values == sorted(values, reverse=True)


def test_components_are_colours_of_the_directions_of_most_variance():
    draw = np.random.default_rng(0)
    tokens = draw.normal(size=(2, 16, 6)) * [0.1, 9, 0.1, 3, 0.1, 1] + 50
    found = Components.of(tokens)
    np.testing.assert_allclose(np.abs(found.axes[[1, 3, 5], [0, 1, 2]]), 1, atol=0.1)
    pixels = np.asarray(found.colors(tokens[0]))
    assert pixels.shape == (4, 4, 3) and pixels.std(axis=(0, 1)).min() > 20


def test_targets_have_names_of_their_own_and_spare_the_images(tmp_path):
    one, two = tmp_path / "a" / "x.png", tmp_path / "b" / "x.jpg"
    out = tmp_path / "out"
    targets = predict._targets([one, two, one], out)
    assert targets == {one: out / "x.png", two: out / "x-2.png"}
    with pytest.raises(UserError, match="would be overwritten"):
        predict._targets([two, one], tmp_path / "a")
    with pytest.raises(UserError, match="is a folder"):
        predict._targets([tmp_path], out)
    with pytest.raises(UserError, match="no images"):
        predict._targets([], out)


def test_captions_that_cannot_be_read_are_one_line(world, tmp_path):
    path = tmp_path / "captions.txt"
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match="not UTF-8"):
        predict._from_file(str(path))
    path.write_text("\n a cat \n\na cat\na dog\n")
    assert predict._from_file(str(path)) == ["a cat", "a dog"]
    path.write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        predict._from_file(str(path))
    texts = predict._from_store(str(world / "test"))
    assert len(texts) == len(set(texts)) == 31, "of 32 rows two are alike"
