# SPDX-License-Identifier: Apache-2.0
"""Folders that transformers writes, read by us: the same features, logits and ids."""

import json
import shutil

import numpy as np
import pytest

import mtv_jax.interop
from input_pipeline.image_spec import ImageSpec
from input_pipeline.tokenizer import Tokenizer
from mtv_jax.core.passes import Wants
from mtv_jax.interop import golden
from mtv_jax.interop.save import save_folder
from mtv_jax.interop.trained import match_logits, unit

pytestmark = pytest.mark.torch
pytest.importorskip("torch.nn", reason="PyTorch is not installed (make test-torch)")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (make test-torch)"
)

TOLERANCE = 1e-4
TINY = dict(hidden_size=128, num_hidden_layers=4, intermediate_size=512, num_attention_heads=4)


def shaken(model):
    """Its initialisation plus noise, which moves biases and norms off their constants."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
        model.logit_scale.fill_(np.log(10.0))
        model.logit_bias.fill_(-10.0)
    return model.eval()


def siglip(vocab_size):
    """B/16-224: with 256,000 ids the configuration of SigLIP 2 at a fixed resolution."""
    torch.manual_seed(0)
    config = transformers.SiglipConfig(
        text_config={"vocab_size": vocab_size}, vision_config={"image_size": 224}
    )
    return shaken(transformers.SiglipModel(config))


@pytest.mark.parametrize("vocab_size", [32_000, 256_000], ids=["siglip", "siglip2"])
def test_features_and_logits_of_a_base_model(tmp_path, vocab_size):
    model = siglip(vocab_size)
    model.save_pretrained(tmp_path)
    ours = mtv_jax.interop.load(tmp_path)
    assert (ours.encoder.image_tower, ours.encoder.image_size) == ("B", 224)
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-1, 1, (3, 224, 224, 3)).astype(np.float32)
    ids = rng.integers(0, vocab_size, (4, 64)).astype(np.int32)
    with torch.no_grad():
        theirs = model(
            pixel_values=torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()),
            input_ids=torch.from_numpy(ids.astype(np.int64)),
        )
    compare(ours, pixels, ids, theirs)


def compare(ours, pixels, ids, theirs):
    """Unit embeddings and logits, and what they are made of before the norm."""
    image = np.asarray(ours.encode_image(pixels, Wants(pooled=True)).pooled)
    text = ours.encode_ids(ids)
    for found, wanted in (
        (image, theirs.vision_model_output.pooler_output),
        (text, theirs.text_model_output.pooler_output),
    ):
        scale = float(np.abs(wanted.numpy()).max())
        np.testing.assert_allclose(found, wanted.numpy(), atol=TOLERANCE * max(scale, 1.0))
    image, text = unit(image), unit(text)
    logits = match_logits(image, text, **ours.logit_scalars)
    np.testing.assert_allclose(image, theirs.image_embeds.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(text, theirs.text_embeds.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(logits, theirs.logits_per_image.numpy(), atol=TOLERANCE)
    assert np.std(logits) > 1e-3, "the inputs differ"


def test_siglip_2_on_squares(tmp_path):
    """Patches of a square, flattened by transformers' own function."""
    from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

    torch.manual_seed(0)
    config = transformers.Siglip2Config(
        text_config={**TINY, "vocab_size": 300, "max_position_embeddings": 16},
        vision_config={**TINY, "num_patches": 25, "patch_size": 8},
    )
    model = shaken(transformers.Siglip2Model(config))
    model.save_pretrained(tmp_path)
    ours = mtv_jax.interop.load(tmp_path)
    assert ours.encoder.image_size == 40
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-1, 1, (3, 40, 40, 3)).astype(np.float32)
    ids = rng.integers(0, 300, (4, 16)).astype(np.int32)
    patches = [convert_image_to_patches(image, 8) for image in pixels.transpose(0, 3, 1, 2)]
    with torch.no_grad():
        theirs = model(
            pixel_values=torch.from_numpy(np.stack(patches)),
            pixel_attention_mask=torch.ones(3, 25, dtype=torch.int64),
            spatial_shapes=torch.full((3, 2), 5),
            input_ids=torch.from_numpy(ids.astype(np.int64)),
        )
    compare(ours, pixels, ids, theirs)


def test_the_vision_model_alone(tmp_path):
    torch.manual_seed(0)
    config = transformers.SiglipVisionConfig(**TINY, image_size=40, patch_size=8)
    model = transformers.SiglipVisionModel(config).eval()
    model.save_pretrained(tmp_path)
    ours = mtv_jax.interop.load(tmp_path)
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 40, 40, 3)).astype(np.float32)
    wants = Wants(pooled=True, tokens=True)
    found = ours.encode_image(pixels, wants)
    with torch.no_grad():
        theirs = model(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(found.pooled, theirs.pooler_output.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(found.tokens, theirs.last_hidden_state.numpy(), atol=TOLERANCE)


@pytest.fixture(scope="module")
def siglip2_folder(tmp_path_factory):
    """A small model with SigLIP 2's tokenizer and preprocessor, as save_pretrained writes them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    root = tmp_path_factory.mktemp("siglip2")
    bpe = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bpe.normalizer = normalizers.Replace(" ", "▁")
    bpe.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    # Without the long text, of which it would make one token.
    corpus = [text.lower() for text in golden.TEXTS[:4]] * 20
    bpe.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=200, special_tokens=special))
    learned = json.loads(bpe.to_str())["model"]
    tokenizer = transformers.Siglip2Tokenizer(
        vocab=learned["vocab"], merges=[tuple(pair) for pair in learned["merges"]]
    )
    tokenizer.save_pretrained(root)
    transformers.SiglipImageProcessor(size={"height": 40, "width": 40}, resample=2).save_pretrained(
        root
    )
    torch.manual_seed(0)
    config = transformers.SiglipConfig(
        text_config={**TINY, "vocab_size": 200, "max_position_embeddings": 12},
        vision_config={**TINY, "image_size": 40, "patch_size": 8},
    )
    shaken(transformers.SiglipModel(config)).save_pretrained(root)
    return root


def test_texts_of_siglip_2(siglip2_folder):
    """Lower case, Gemma's ids, one EOS that truncation keeps, then padding (big_vision's order)."""
    theirs = transformers.AutoTokenizer.from_pretrained(siglip2_folder)
    ours = mtv_jax.interop.load(siglip2_folder).tokenizer
    for text in golden.TEXTS:
        ids = [*theirs(text.lower(), add_special_tokens=False)["input_ids"][:11], 1]
        assert ours.encode(text).tolist() == ids + [0] * (12 - len(ids))
    assert ours.fits(golden.TEXTS[0]) and not ours.fits(golden.TEXTS[4])


def test_texts_are_lowered_for_a_tokenizer_file_that_does_not(siglip2_folder, tmp_path):
    """Published ones are Gemma's own; the class that reads them adds the lowering."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(siglip2_folder / name, tmp_path / name)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    ours = Tokenizer(str(tmp_path / "tokenizer.json"), 12)
    theirs = mtv_jax.interop.load(siglip2_folder).tokenizer
    for text in golden.TEXTS[:4]:
        assert ours.encode(text.upper()).tolist() == theirs.encode(text.lower()).tolist()


def test_images_of_siglip_2_are_resized_as_its_processor_says(siglip2_folder):
    ours = mtv_jax.interop.load(siglip2_folder)
    images = golden.golden_images()
    processor = transformers.AutoImageProcessor.from_pretrained(siglip2_folder, use_fast=False)
    theirs = processor(images, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    assert ours.preprocessing["image_resize"].startswith("Pillow BILINEAR")
    np.testing.assert_allclose(ours.pixels(images), theirs, atol=2.1 / 127.5)
    with_bicubic = np.stack([ImageSpec().squash(i, 40) for i in images])
    assert np.abs(with_bicubic / 127.5 - 1 - theirs).max() > 0.1, "the kernel matters"


def test_siglip_2_there_and_back(siglip2_folder, tmp_path):
    first = mtv_jax.interop.load(siglip2_folder)
    save_folder(tmp_path / "export", first)
    again = mtv_jax.interop.load(tmp_path / "export")
    assert again.preprocessing == first.preprocessing
    model = transformers.SiglipModel.from_pretrained(tmp_path / "export")
    state = transformers.SiglipModel.from_pretrained(siglip2_folder).state_dict()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[key]), key
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "export")
    assert int(processor.resample) == 2
    for text in golden.TEXTS:
        assert again.tokenizer.encode(text).tolist() == first.tokenizer.encode(text).tolist()
