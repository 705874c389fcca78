# SPDX-License-Identifier: Apache-2.0
"""The JSON files that make a folder one of transformers' SigLIP models, as dictionaries.

Read the same by transformers 4.57 and 5.23.
"""

from typing import Any

from input_pipeline.image_spec import ImageSpec
from input_pipeline.tokenizer import HUB_CONFIG, HUB_FILE, Tokenizer
from mtv_jax.models.encoder import Encoder
from mtv_jax.models.sizes import TowerSize

TOKENIZER_MODEL = "spiece.model"  # the name SiglipTokenizer looks for
TEXT_FILES = (TOKENIZER_MODEL, HUB_FILE, HUB_CONFIG, "special_tokens_map.json")
RESAMPLE = {"bicubic": 3, "bilinear": 2}  # Pillow's numbers
_SPECIAL_TOKENS = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}


def tokenizer_file(tokenizer: Tokenizer) -> str:
    """The name under which transformers looks for a tokenizer's file."""
    return HUB_FILE if tokenizer.is_gemma else TOKENIZER_MODEL


def hf_files(
    encoder: Encoder, images: ImageSpec, tokenizer: Tokenizer | None
) -> dict[str, dict[str, Any]]:
    """File name → content; a Gemma tokenizer brings its own files."""
    processor = image_processor_config(encoder, images)
    if tokenizer is None:
        return {
            "config.json": model_config(encoder, None),
            "preprocessor_config.json": processor,
        }
    files = {
        "config.json": model_config(encoder, tokenizer),
        "preprocessor_config.json": {**processor, "processor_class": "SiglipProcessor"},
    }
    if tokenizer.is_gemma:
        return files
    return {
        **files,
        HUB_CONFIG: tokenizer_config(encoder),
        "special_tokens_map.json": dict(_SPECIAL_TOKENS),
    }


def model_config(encoder: Encoder, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Of `SiglipModel`, or of `SiglipVisionModel` without a tokenizer."""
    vision = {
        "model_type": "siglip_vision_model",
        "image_size": encoder.image_size,
        "patch_size": encoder.patch_size,
        "num_channels": 3,
        "vision_use_head": True,
        **_dimensions(encoder.image_dims),
    }
    if tokenizer is None:
        return {**vision, "architectures": ["SiglipVisionModel"], "dtype": "float32"}
    text = {
        "model_type": "siglip_text_model",
        "vocab_size": encoder.vocab_size,
        "max_position_embeddings": encoder.text_length,
        "projection_size": encoder.embed_dim,
        "pad_token_id": tokenizer.pad,
        "bos_token_id": tokenizer.eos,  # there is none; the default may lie outside the vocabulary
        "eos_token_id": tokenizer.eos,
        **_dimensions(encoder.text_dims),
    }
    return {
        "model_type": "siglip",
        "architectures": ["SiglipModel"],
        "dtype": "float32",
        "text_config": text,
        "vision_config": vision,
    }


def image_processor_config(encoder: Encoder, images: ImageSpec) -> dict[str, Any]:
    """Of `SiglipImageProcessor`: squash to a square, then mean and deviation of the values."""
    deviation = 1 / (images.high - images.low)
    return {
        "image_processor_type": "SiglipImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": encoder.image_size, "width": encoder.image_size},
        "resample": RESAMPLE[images.resample],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [-images.low * deviation] * 3,
        "image_std": [deviation] * 3,
    }


def tokenizer_config(encoder: Encoder) -> dict[str, Any]:
    """Of `SiglipTokenizer`, which canonicalises text itself."""
    return {
        "tokenizer_class": "SiglipTokenizer",
        "processor_class": "SiglipProcessor",
        "model_max_length": encoder.text_length,
        "model_input_names": ["input_ids"],
        "do_lower_case": True,
        "clean_up_tokenization_spaces": False,
        **_SPECIAL_TOKENS,
    }


def _dimensions(size: TowerSize) -> dict[str, Any]:
    return {
        "hidden_size": size.embed_dim,
        "num_hidden_layers": size.num_layers,
        "intermediate_size": size.mlp_dim,
        "num_attention_heads": size.num_heads,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "attention_dropout": 0.0,
    }
