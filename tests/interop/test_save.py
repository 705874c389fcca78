# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import os

import numpy as np
import pytest
import safetensors.numpy

from mtv_jax.core.errors import UserError
from mtv_jax.interop import golden, save
from mtv_jax.interop.card import labels_not_for_sale
from mtv_jax.interop.name_map import to_hf
from mtv_jax.interop.save import save_folder


def read_json(folder, name):
    return json.loads((folder / name).read_text())


def test_weights_are_what_torch_reads(folder, export):
    scalars = {"logit_scale": np.float32(2.5), "logit_bias": np.float32(-9.25)}
    expected = to_hf({**export.params["backbone"], **scalars})
    written = safetensors.numpy.load_file(folder / "model.safetensors")
    assert written.keys() == expected.keys()
    for key, tensor in expected.items():
        np.testing.assert_array_equal(written[key], tensor)
    with safetensors.safe_open(folder / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
    assert os.stat(folder / "model.safetensors").st_mode & 0o044 == 0o044


def test_configs_describe_the_model(folder):
    config = read_json(folder, "config.json")
    for tower in ("text_config", "vision_config"):
        assert config[tower]["hidden_act"] == "gelu_pytorch_tanh"
        assert config[tower]["layer_norm_eps"] == 1e-6
        assert config[tower]["hidden_size"] == 128
    assert config["vision_config"]["vision_use_head"] is True
    assert config["text_config"]["projection_size"] == 128
    assert config["text_config"]["max_position_embeddings"] == 12
    assert read_json(folder, "tokenizer_config.json")["model_max_length"] == 12
    processor = read_json(folder, "preprocessor_config.json")
    assert processor["size"] == {"height": 32, "width": 32} and processor["resample"] == 3


def test_our_description_and_parity_report(folder, export):
    description = read_json(folder, "mtv.json")
    assert description["provenance"] == {"run": "a test", "step": 7}
    assert description["encoder"]["image_tower"] == "cpu"
    assert description["encoder"]["has_mask_token"] is False
    assert description["preprocessing"]["tokenizer_sha256"] == export.tokenizer.sha256
    assert description["objectives"]["depth"]["type"] == "mtv_jax.objectives.depth:Depth"
    assert description["preprocessing"]["image_size"] == 32
    assert read_json(folder, "parity.json")["status"] == "parity not run"


def test_the_card_states_the_numbers_it_was_given(folder):
    card = (folder / "README.md").read_text()
    assert "| zero-shot top-1 | 0.4321 |" in card
    assert '"run": "a test"' in card
    assert "`depth/disparity`" in card
    assert "{" not in card.replace("{\n", "").split("```json")[0]  # no template left unfilled


def test_the_card_states_whose_labels_it_learned_from(tmp_path, image_only):
    label = dict(sidecar="depth_v1", maker="Deep", licence="CC-BY-NC-4.0", commercial=False)
    free = dict(sidecar="regions_v1", maker="Owl", licence="Apache-2.0", commercial=True)
    unknown = dict(sidecar="mine_v1", maker="me", licence="licence not recorded", commercial=None)
    data = [
        dict(store="web", rows=1234, weight=0.5, selection="", labels=[label, free, unknown]),
        dict(store="bare", rows=7, weight=0.5, selection="", labels=[]),
    ]
    provenance = {"data": data}
    save_folder(tmp_path, dataclasses.replace(image_only, objectives={}, provenance=provenance))
    card = (tmp_path / "README.md").read_text()
    assert "- web: 1,234 images, weight 0.5\n- bare: 7 images" in card
    assert "| web | depth_v1 | Deep | CC-BY-NC-4.0 | NOT allowed |" in card
    assert "| web | regions_v1 | Owl | Apache-2.0 | allowed |" in card
    assert "| web | mine_v1 | me | licence not recorded | not recorded |" in card
    assert labels_not_for_sale(provenance) == ["depth_v1 by Deep (CC-BY-NC-4.0)"]
    assert labels_not_for_sale({}) == []


def test_a_card_without_texts_or_heads_does_not_speak_of_them(tmp_path, image_only):
    save_folder(tmp_path, dataclasses.replace(image_only, objectives={}))
    card = (tmp_path / "README.md").read_text()
    assert "logits" not in card and "sentencepiece" not in card and "heads" not in card
    assert "It was not recorded what this model learned from." in card
    assert "means nothing" not in card, "its pooled vectors were trained"
    assert read_json(tmp_path, "config.json")["architectures"] == ["SiglipVisionModel"]
    assert not (tmp_path / "heads.safetensors").exists()


def test_golden_arrays_are_complete_and_consistent(folder, export):
    with np.load(folder / golden.FILE) as arrays:
        ids = np.stack([export.tokenizer.encode(str(text)) for text in arrays["texts"]])
        np.testing.assert_array_equal(arrays["ids"], ids)
        assert arrays["ids"][-2, -1] == 1 and arrays["ids"][-2, -2] != 1  # truncated, EOS kept
        assert arrays["resized"].shape == (4, 32, 32, 3) and arrays["resized"].dtype == np.uint8
        norms = np.linalg.norm(arrays["image_embeds"], axis=1)
        np.testing.assert_allclose(norms, 1, atol=1e-6)
        cosine = arrays["image_embeds"] @ arrays["text_embeds"].T
        expected = np.exp(2.5) * cosine - 9.25
        np.testing.assert_allclose(arrays["logits_per_image"], expected, rtol=1e-5)
        assert np.ptp(arrays["logits_per_image"]) > 0.1


def test_a_killed_export_does_not_load(tmp_path, export, monkeypatch):
    save_folder(tmp_path, export)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(golden, "golden_arrays", killed)
    with pytest.raises(KeyboardInterrupt):
        save_folder(tmp_path, export)
    assert not (tmp_path / "mtv.json").exists()


def test_weights_that_read_back_differently_are_an_error(tmp_path, export, monkeypatch):
    def scramble(tensors, path, metadata):
        broken = {key: tensor[::-1].copy() for key, tensor in tensors.items()}
        original(broken, path, metadata=metadata)

    original = safetensors.numpy.save_file
    monkeypatch.setattr(save.safetensors.numpy, "save_file", scramble)
    with pytest.raises(RuntimeError, match="reads back"):
        save_folder(tmp_path, export)
    assert not (tmp_path / "model.safetensors").exists()


def test_what_cannot_be_exported_is_one_line(tmp_path, export):
    mean = dataclasses.replace(export.encoder, pooling="mean")
    with pytest.raises(UserError, match="pools by attention, this model by mean"):
        save_folder(tmp_path, dataclasses.replace(export, encoder=mean))
    narrow = dataclasses.replace(export.encoder, vocab_size=10)
    with pytest.raises(UserError, match="ids, the model embeds 10"):
        save_folder(tmp_path, dataclasses.replace(export, encoder=narrow))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write the export"):
        save_folder(tmp_path / "file", export)
