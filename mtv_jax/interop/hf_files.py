# SPDX-License-Identifier: Apache-2.0
"""The JSON files that make a folder one of transformers' SigLIP models, as dictionaries.

Read the same by transformers 4.57 and 5.23.
"""

from typing import Any

from input_pipeline.tokenizer import EOS
from mtv_jax.models.encoder import Encoder
from mtv_jax.models.sizes import TowerSize

TOKENIZER_MODEL = "spiece.model"  # the name SiglipTokenizer looks for
TEXT_FILES = ("tokenizer_config.json", "special_tokens_map.json")
_SPECIAL_TOKENS = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}


def hf_files(encoder: Encoder) -> dict[str, dict[str, Any]]:
    """File name → content."""
    files = {"config.json": model_config(encoder)}
    processor = image_processor_config(encoder)
    if not encoder.has_text_tower:
        return {**files, "preprocessor_config.json": processor}
    return {
        **files,
        "preprocessor_config.json": {**processor, "processor_class": "SiglipProcessor"},
        "tokenizer_config.json": tokenizer_config(encoder),
        "special_tokens_map.json": dict(_SPECIAL_TOKENS),
    }


def model_config(encoder: Encoder) -> dict[str, Any]:
    """Of `SiglipModel`, or of `SiglipVisionModel` without a text tower."""
    vision = {
        "model_type": "siglip_vision_model",
        "image_size": encoder.image_size,
        "patch_size": encoder.patch_size,
        "num_channels": 3,
        "vision_use_head": True,
        **_dimensions(encoder.image_dims),
    }
    if not encoder.has_text_tower:
        return {**vision, "architectures": ["SiglipVisionModel"], "dtype": "float32"}
    text = {
        "model_type": "siglip_text_model",
        "vocab_size": encoder.vocab_size,
        "max_position_embeddings": encoder.text_length,
        "projection_size": encoder.embed_dim,
        "pad_token_id": EOS,
        "bos_token_id": EOS,  # there is none; the default lies outside small vocabularies
        "eos_token_id": EOS,
        **_dimensions(encoder.text_dims),
    }
    return {
        "model_type": "siglip",
        "architectures": ["SiglipModel"],
        "dtype": "float32",
        "text_config": text,
        "vision_config": vision,
    }


def image_processor_config(encoder: Encoder) -> dict[str, Any]:
    """Of `SiglipImageProcessor`: squash to a square, then [-1, 1]."""
    return {
        "image_processor_type": "SiglipImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": encoder.image_size, "width": encoder.image_size},
        "resample": 3,  # Pillow's BICUBIC
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
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
