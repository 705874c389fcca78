# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import mtv_jax.interop
from mtv_jax.core.errors import UserError
from mtv_jax.core.passes import Wants
from mtv_jax.interop import golden
from mtv_jax.interop.save import save_folder


@pytest.fixture(scope="module")
def loaded(folder):
    return mtv_jax.interop.load(folder)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_parameters_come_back_bit_equal(loaded, export):
    backbone = export.params["backbone"]
    image = {k: v for k, v in backbone["image"].items() if k != "mask_token"}
    expected = {**export.params, "backbone": {**backbone, "image": image}}
    assert jax.tree.structure(loaded.params) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, expected)
    assert loaded.logit_scalars == {"scale": 2.5, "bias": -9.25}
    assert loaded.provenance == {"run": "a test", "step": 7}
    assert loaded.objectives == export.objectives


def test_raw_inputs_give_the_golden_logits(loaded, folder):
    logits = loaded.logits(golden.golden_images(), golden.TEXTS)
    with np.load(folder / golden.FILE) as arrays:
        np.testing.assert_allclose(logits, arrays["logits_per_image"], atol=1e-4)


def test_heads_predict_the_golden_maps(loaded, folder):
    maps = loaded.maps(golden.golden_images())
    assert loaded.map_names("depth") == ["disparity"] and maps.keys() == {"depth/disparity"}
    with np.load(folder / golden.FILE) as arrays:
        stored = arrays["depth/disparity"]
    assert stored.shape == (4, 32, 32) and stored.std() > 1e-4
    np.testing.assert_allclose(maps["depth/disparity"], stored, atol=1e-4)


def test_a_model_without_texts_replaces_one_with(copy, image_only):
    save_folder(copy, dataclasses.replace(image_only, pools=False))
    loaded = mtv_jax.interop.load(copy)
    assert loaded.tokenizer is None and loaded.params["backbone"].keys() == {"image"}
    assert not loaded.pools and "means nothing" in (copy / "README.md").read_text()
    for name in ("spiece.model", "tokenizer_config.json", "special_tokens_map.json"):
        assert not (copy / name).exists(), name
    with np.load(copy / golden.FILE) as arrays:
        assert not {"ids", "text_embeds", "logits_per_image"} & {*arrays}
        features = loaded.image_features(golden.golden_images())
        unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
        np.testing.assert_allclose(unit, arrays["image_embeds"], atol=1e-5)
    for ask in (lambda: loaded.text_features(["a"]), lambda: loaded.logit_scalars):
        with pytest.raises(UserError, match=r"no text tower|without image-text contrast"):
            ask()


@pytest.mark.parametrize("fault", ["gone", "other shape"])
def test_heads_that_do_not_fit_are_one_line(copy, fault):
    path = copy / "heads.safetensors"
    heads = safetensors.numpy.load_file(path)
    path.unlink()
    if fault == "other shape":
        heads["depth_dpt/out2/kernel"] = np.zeros((3, 3, 5, 32), np.float32)
        safetensors.numpy.save_file(heads, path)
    with pytest.raises(UserError, match=r"heads.safetensors does not hold the heads of depth"):
        mtv_jax.interop.load(copy)


def test_images_may_be_arrays_pictures_or_files(loaded, tmp_path):
    array = golden.golden_images()[1]
    picture = Image.fromarray(array)
    picture.save(tmp_path / "image.png")
    features = loaded.image_features([array, picture, tmp_path / "image.png"])
    assert features.shape == (3, 128) and features.dtype == np.float32
    np.testing.assert_allclose(features[1:], features[[0, 0]], atol=1e-5)


def test_patch_tokens_and_taps_at_any_grid(loaded):
    pixels = np.zeros((2, 24, 40, 3), np.float32)
    features = loaded.encode_image(pixels, Wants(tokens=True, taps=(1,)))
    assert features.tokens.shape == features.taps[1].shape == (2, 15, 128)


def test_text_features(loaded):
    features = loaded.text_features(["a photo of a cat", "A photo, of a CAT!"])
    assert features.shape == (2, 128)
    np.testing.assert_allclose(features[0], features[1], atol=1e-5)


def test_importing_the_package_does_not_import_jax():
    code = "import sys, mtv_jax.interop; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_without_export_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"holds no exported model \(mtv.json is missing\)"):
        mtv_jax.interop.load(tmp_path)


def test_another_format_is_refused(copy):
    description = json.loads((copy / "mtv.json").read_text())
    (copy / "mtv.json").write_text(json.dumps(description | {"format": 99}))
    with pytest.raises(UserError, match="has format 99"):
        mtv_jax.interop.load(copy)


def test_another_tokenizer_is_refused(copy):
    path = copy / "spiece.model"
    path.write_bytes(path.read_bytes() + b"\x00")
    with pytest.raises(UserError, match=r"tokenizer_sha256|not a SentencePiece model"):
        mtv_jax.interop.load(copy)


def test_other_preprocessing_is_refused(copy):
    description = json.loads((copy / "mtv.json").read_text())
    description["preprocessing"]["image_fit"] = "centre crop"
    (copy / "mtv.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"image_fit is .squash to a square., was .centre crop."):
        mtv_jax.interop.load(copy)


def test_truncated_weights_are_one_line(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot read the weights"):
        mtv_jax.interop.load(copy)
