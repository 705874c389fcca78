# SPDX-License-Identifier: Apache-2.0
"""Folders as transformers writes them, made from our own export without its `mtv.json`."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import mtv_jax.interop
from mtv_jax.core.errors import UserError
from mtv_jax.interop import golden
from mtv_jax.interop.save import save_folder

WEIGHTS = "model.safetensors"
_OURS = ("mtv.json", "golden.npz", "parity.json", "heads.safetensors", "README.md")


@pytest.fixture
def hf(folder, tmp_path):
    """What transformers would have written: no file of ours."""
    return shutil.copytree(folder, tmp_path / "hf", ignore=shutil.ignore_patterns(*_OURS))


def weights_of(root):
    return safetensors.numpy.load_file(root / WEIGHTS)


def write(root, tensors):
    safetensors.numpy.save_file(
        {k: np.ascontiguousarray(v) for k, v in tensors.items()}, root / WEIGHTS
    )


def edit(root, name, **changes):
    """Changes of a JSON file; None removes a key."""
    content = json.loads((root / name).read_text())
    for path, value in changes.items():
        *parents, key = path.split("__")
        section = content
        for parent in parents:
            section = section[parent]
        if value is None:
            section.pop(key)
        else:
            section[key] = value
    (root / name).write_text(json.dumps(content))


def test_there_and_back_is_bit_equal(hf, export, tmp_path):
    loaded = mtv_jax.interop.load(hf)
    backbone = dict(export.params["backbone"])
    backbone["image"] = {k: v for k, v in backbone["image"].items() if k != "mask_token"}
    jax.tree.map(np.testing.assert_array_equal, loaded.params["backbone"], backbone)
    assert loaded.logit_scalars == export.logit_scalars
    assert loaded.preprocessing == export.preprocessing
    save_folder(tmp_path / "again", loaded)
    again, first = weights_of(tmp_path / "again"), weights_of(hf)
    assert again.keys() == first.keys()
    for key, tensor in first.items():
        np.testing.assert_array_equal(again[key], tensor)


def test_it_gives_the_golden_logits(hf, folder):
    loaded = mtv_jax.interop.load(hf)
    with np.load(folder / golden.FILE) as arrays:
        logits = loaded.logits(golden.golden_images(), golden.TEXTS)
        np.testing.assert_allclose(logits, arrays["logits_per_image"], atol=1e-4)


@pytest.mark.parametrize("form", ["wrapped", "sharded", "buffers"])
def test_the_same_tensors_in_other_files(hf, form):
    expected = mtv_jax.interop.load(hf)
    tensors = weights_of(hf)
    match form:
        case "wrapped":
            write(hf, {f"module.siglip.{key}": x for key, x in tensors.items()})
        case "buffers":
            write(hf, {**tensors, "vision_model.embeddings.position_ids": np.arange(16)})
        case "sharded":
            (hf / WEIGHTS).unlink()
            names = {key: f"part-{i % 2}.safetensors" for i, key in enumerate(sorted(tensors))}
            for name in set(names.values()):
                part = {key: x for key, x in tensors.items() if names[key] == name}
                safetensors.numpy.save_file(part, hf / name)
            (hf / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": names}))
    found = mtv_jax.interop.load(hf)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    count = len(tensors)
    extra = form == "buffers"
    lines = found.report.splitlines()
    assert lines[0] == f"read {hf}: {count} tensors loaded, 0 missing, {int(extra)} unexpected"
    assert lines[1:] == ["unexpected vision_model.embeddings.position_ids"] * extra


def test_half_precision_is_read_as_it_is(hf):
    tensors = {key: x.astype(ml_dtypes.bfloat16) for key, x in weights_of(hf).items()}
    write(hf, tensors)
    kernel = mtv_jax.interop.load(hf).params["backbone"]["text"]["head"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, tensors["text_model.head.weight"].T.astype(np.float32))


def test_defaults_may_be_left_out(hf):
    """As the published configs do; these towers are small, so only what equals a default."""
    for name in ("hidden_act", "layer_norm_eps"):
        edit(hf, "config.json", **{f"vision_config__{name}": None, f"text_config__{name}": None})
    edit(hf, "config.json", vision_config__num_channels=None, text_config__projection_size=None)
    assert mtv_jax.interop.load(hf).encoder.patch_size == 8


def test_the_image_tower_alone(hf):
    vision = json.loads((hf / "config.json").read_text())["vision_config"]
    (hf / "config.json").write_text(json.dumps(vision))
    tensors = weights_of(hf)
    prefix = "vision_model."
    write(hf, {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)})
    loaded = mtv_jax.interop.load(hf)
    assert loaded.params["backbone"].keys() == {"image"} and loaded.tokenizer is None
    assert loaded.pools and loaded.image_features(golden.golden_images()).shape == (4, 128)


def test_a_tower_without_a_pooling_head_has_patch_tokens_only(hf):
    edit(hf, "config.json", vision_config__vision_use_head=False)
    tensors = {k: x for k, x in weights_of(hf).items() if not k.startswith("vision_model.head.")}
    write(hf, tensors)
    loaded = mtv_jax.interop.load(hf)
    assert not loaded.pools and "map_pool" not in loaded.params["backbone"]["image"]


def test_patches_of_siglip_2_are_a_convolution(hf):
    expected = mtv_jax.interop.load(hf).params["backbone"]["image"]["patch_embed"]["conv"]["kernel"]
    tensors = weights_of(hf)
    key = "vision_model.embeddings.patch_embedding.weight"
    tensors[key] = tensors[key].transpose(0, 2, 3, 1).reshape(128, -1)
    write(hf, tensors)
    edit(hf, "config.json", model_type="siglip2", vision_config__image_size=None)
    edit(hf, "config.json", vision_config__num_patches=16)
    loaded = mtv_jax.interop.load(hf)
    assert loaded.encoder.image_size == 32
    found = loaded.params["backbone"]["image"]["patch_embed"]["conv"]["kernel"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("kind", "kernel"), [("siglip", "bicubic"), ("siglip2", "bilinear")])
def test_a_kernel_that_is_left_out_is_the_models_default(hf, kind, kernel):
    edit(hf, "preprocessor_config.json", resample=None)
    edit(hf, "config.json", model_type=kind, vision_config__num_patches=16)
    assert mtv_jax.interop.load(hf).images.resample == kernel


def test_the_preprocessor_decides_how_images_are_read(hf):
    edit(hf, "preprocessor_config.json", resample=2, image_mean=[0.25] * 3, image_std=[0.125] * 3)
    loaded = mtv_jax.interop.load(hf)
    assert (loaded.images.resample, loaded.images.low, loaded.images.high) == ("bilinear", -2, 6)
    pixels = loaded.images.pixels(np.array([0, 255], np.uint8))
    np.testing.assert_allclose(pixels, [-2, 6], rtol=1e-6)


def test_without_a_preprocessor_it_says_so(hf):
    (hf / "preprocessor_config.json").unlink()
    loaded = mtv_jax.interop.load(hf)
    assert loaded.images.resample == "bicubic" and "no preprocessor_config.json" in loaded.report


def test_without_a_tokenizer_it_reads_no_texts(hf):
    (hf / "spiece.model").unlink()
    loaded = mtv_jax.interop.load(hf)
    assert loaded.tokenizer is None and "it can read no texts" in loaded.report
    with pytest.raises(UserError, match="no tokenizer"):
        save_folder(hf.parent / "again", loaded)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("config.json", {"vision_config__hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("config.json", {"text_config__layer_norm_eps": 1e-5}, "layer_norm_eps 1e-05"),
        ("config.json", {"vision_config__num_hidden_layers": 5}, "no tower size .*num_layers=5"),
        ("config.json", {"vision_config__num_hidden_layers": 12, "vision_config__hidden_size": 192,
          "vision_config__intermediate_size": 768, "vision_config__num_attention_heads": 3},
         "projects texts to another width"),
        ("config.json", {"text_config__vocab_size": 200}, "token_embedding.weight has shape"),
        ("config.json", {"text_config__vocab_size": 20}, "has .* ids, the text tower 20|has shape"),
        ("preprocessor_config.json", {"resample": 1}, "resamples images by Pillow's 1"),
        ("preprocessor_config.json", {"image_mean": [0.48, 0.45, 0.4]}, "one for all colours"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 32}}, "resizes images to"),
        ("preprocessor_config.json", {"do_center_crop": True}, "crops images"),
    ],
)  # fmt: skip
def test_what_differs_is_refused_in_a_line(hf, name, changes, message):
    edit(hf, name, **changes)
    with pytest.raises(UserError, match=message):
        mtv_jax.interop.load(hf)


def test_incomplete_weights_are_refused(hf):
    tensors = weights_of(hf)
    del tensors["text_model.head.bias"]
    write(hf, tensors)
    with pytest.raises(UserError, match=r"lack text_model.head.bias: they are incomplete"):
        mtv_jax.interop.load(hf)
    (hf / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"cannot read the weights .*save_pretrained"):
        mtv_jax.interop.load(hf)
