# SPDX-License-Identifier: Apache-2.0
"""Exported folders against transformers: the same numbers, and a check that can say no."""

import io
import json
import random
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import sentencepiece

from input_pipeline.tokenizer import Tokenizer
from mtv_jax.core.passes import Wants
from mtv_jax.interop import golden, load
from mtv_jax.interop.save import save_folder
from mtv_jax.interop.trained import TrainedEncoder
from mtv_jax.models.encoder import Encoder
from tools import export_check

pytestmark = pytest.mark.torch
# Not `torch` alone: the name of this folder can pass for it where it is not installed.
pytest.importorskip("torch.nn", reason="PyTorch is not installed (make test-torch)")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (make test-torch)"
)


def make_export(directory, encoder: Encoder, *, noise: float) -> None:
    """Exports the initialisation plus noise, which moves biases and norms off their constants."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(golden.TEXTS * 20),
        model_writer=model,
        vocab_size=80,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="nmt_nfkc_cf",
        minloglevel=2,
    )
    tokenizer = directory / "tiny.model"
    tokenizer.write_bytes(model.getvalue())
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf) + noise * rng.standard_normal(leaf.shape, np.float32),
        jax.jit(encoder.init)(jax.random.key(0)),
    )
    logits = {"logit_scale": np.float32(np.log(10.0)), "logit_bias": np.float32(-10.0)}
    heads = {"vl_logits": logits} if encoder.has_text_tower else {}
    trained = TrainedEncoder(
        encoder=encoder,
        params={"backbone": params, "heads": heads},
        tokenizer=Tokenizer(str(tokenizer), encoder.text_length)
        if encoder.has_text_tower
        else None,
    )
    save_folder(directory / "export", trained)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Towers of different widths, odd sizes throughout."""
    encoder = Encoder(
        image_size=40,
        patch_size=8,
        image_tower="cpu",
        text_tower="Ti",
        vocab_size=123,
        text_length=12,
    )
    directory = tmp_path_factory.mktemp("small")
    make_export(directory, encoder, noise=0.02)
    return directory / "export"


def test_the_check_passes_and_writes_its_verdict(folder, capsys):
    assert export_check.main([str(folder)]) == 0
    verdict = json.loads((folder / "parity.json").read_text())
    assert verdict["status"] == "passed"
    assert set(verdict["max_abs_ours_vs_transformers"]) == set(export_check.OUTPUTS)
    assert max(verdict["max_abs_ours_vs_transformers"].values()) <= 1e-4
    assert verdict["transformers_preprocessing"]["ids_equal"]
    assert verdict["transformers_preprocessing"]["pixels_max_abs"] <= 2 / 127.5
    assert verdict["weights_that_do_not_fit"] == []


def break_nothing_but(folder, breakage):
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    if breakage == "exact GELU":
        config["vision_config"]["hidden_act"] = "gelu"
    elif breakage == "epsilon":
        config["text_config"]["layer_norm_eps"] = 1e-3
    elif breakage == "missing layer":
        config["text_config"]["num_hidden_layers"] = 13
    elif breakage == "other weights":
        weights["vision_model.head.mlp.fc1.bias"] += 0.1
    elif breakage == "ids":
        replace_golden(folder, {"ids": np.ones((len(golden.TEXTS), 12), np.int32)})
    safetensors.numpy.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "breakage", ["exact GELU", "epsilon", "missing layer", "other weights", "ids"]
)
def test_the_check_says_no(folder, tmp_path, capsys, breakage):
    broken = shutil.copytree(folder, tmp_path / "broken")
    break_nothing_but(broken, breakage)
    assert export_check.main([str(broken)]) == 1
    verdict = json.loads((broken / "parity.json").read_text())
    assert verdict["status"] == "failed"
    assert bool(verdict["weights_that_do_not_fit"]) == (breakage == "missing layer")
    assert verdict["transformers_preprocessing"]["ids_equal"] == (breakage != "ids")


def replace_golden(folder, changes):
    with np.load(folder / golden.FILE) as arrays:
        arrays = dict(arrays)
    np.savez(folder / golden.FILE, **arrays | changes)


def test_hidden_states_are_the_taps(folder):
    loaded = load(folder)
    pixels = loaded.pixels(golden.golden_images())
    wants = Wants(taps=tuple(range(4)), embedded=True, tokens=True, pooled=True)
    features = loaded.encode_image(pixels, wants)
    model = transformers.SiglipVisionModel.from_pretrained(folder)
    inputs = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        outputs = model(pixel_values=inputs, output_hidden_states=True)
    states = [state.numpy() for state in outputs.hidden_states]
    ours = [features.embedded, *(features.taps[index] for index in range(4))]
    assert len(states) == len(ours)
    for state, tap in zip(states, ours, strict=True):
        np.testing.assert_allclose(tap, state, atol=2e-5)
    np.testing.assert_allclose(features.tokens, outputs.last_hidden_state.numpy(), atol=2e-5)
    np.testing.assert_allclose(features.pooled, outputs.pooler_output.numpy(), atol=2e-5)


def test_the_tokenizer_agrees_on_any_text(folder):
    ours = Tokenizer(str(folder / "spiece.model"), 12)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    draw = random.Random(0)
    # Underscores apart: transformers deletes them, training turns them into spaces.
    characters = [chr(c) for c in (*range(1, 0x250), *range(0x2000, 0x2070)) if chr(c) != "_"]
    words = ["a", "Cat", "don't", "  ", "\t", "very long", "▁", "photo "]
    texts = [
        "".join(draw.choice(draw.choice((characters, words))) for _ in range(draw.randint(0, 15)))
        for _ in range(500)
    ]
    batch = theirs(texts, padding="max_length", truncation=True, return_tensors="np")
    np.testing.assert_array_equal(batch["input_ids"], [ours.encode(text) for text in texts])


def test_an_image_tower_alone_agrees(tmp_path):
    encoder = Encoder(image_size=40, patch_size=8, image_tower="cpu", has_text_tower=False)
    make_export(tmp_path, encoder, noise=0.02)
    verdict = export_check.check(tmp_path / "export")
    assert verdict["status"] == "passed", verdict
    assert verdict["max_abs_ours_vs_transformers"].keys() == {"image_embeds"}


def test_a_random_b16_agrees(tmp_path):
    make_export(tmp_path, Encoder(), noise=0.0)
    verdict = export_check.check(tmp_path / "export")
    assert verdict["status"] == "passed", verdict
