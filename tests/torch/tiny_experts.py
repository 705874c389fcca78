# SPDX-License-Identifier: Apache-2.0
"""Tiny experts of random weights, in the file layout of the published ones."""

import json
import pathlib
import string
from collections.abc import Sequence

import numpy as np
import torch
import transformers

from tools.label.experts.ram_plus_files import TagList
from tools.label.experts.ram_plus_network import RamPlus, Shape


def depth_anything(folder: pathlib.Path) -> pathlib.Path:
    """A Depth Anything V2 of four layers; images keep the published processor's settings."""
    torch.manual_seed(0)
    backbone = transformers.Dinov2Config(
        hidden_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=70,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=24,
        neck_hidden_sizes=[8, 16, 24, 24],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    model = transformers.DepthAnythingForDepthEstimation(config)
    for parameter in model.parameters():  # as they come, maps are flat
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    torch.nn.init.constant_(model.head.conv3.bias, 2.0)
    model.save_pretrained(folder)
    transformers.DPTImageProcessor(
        size={"height": 70, "width": 70}, ensure_multiple_of=14, keep_aspect_ratio=True
    ).save_pretrained(folder)
    return folder


def owlv2(folder: pathlib.Path) -> pathlib.Path:
    """An OWLv2 of two layers on squares of 64 pixels; its tokenizer knows letters."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    letters = [*string.ascii_lowercase, *string.digits, "!"]
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=32, pad_token="!"
    )
    text = dict(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
        pad_token_id=vocabulary["!"],
    )
    vision = dict(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
    )
    config = transformers.Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)
    model = transformers.Owlv2ForObjectDetection(config)
    torch.nn.init.normal_(model.box_head.dense2.weight, std=0.01)  # a box about each patch
    model.save_pretrained(folder)
    images = transformers.Owlv2ImageProcessor(size={"height": 64, "width": 64})
    transformers.Owlv2Processor(images, tokenizer).save_pretrained(folder)
    return folder


def ram_plus(
    folder: pathlib.Path, names: Sequence[str] = ("dog", "cat", "house", "tree")
) -> dict[str, str]:
    """A RAM++ of two stages in the published layout, as settings of the expert."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    tags = TagList(names=tuple(names), thresholds=np.zeros(len(names), np.float32))
    shape = Shape(embed_dim=8, depths=(1, 2), num_heads=(2, 4), decoder_dim=16)
    network = RamPlus(tags, shape)
    torch.nn.init.normal_(network.label_embed)
    torch.nn.init.normal_(network.fc.weight, std=2.0)
    torch.save({"model": network.state_dict()}, folder / "ram_plus.pth")
    (folder / "tags.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "thresholds.txt").write_text("0.3\n" * len(names))
    files = dict(weights="ram_plus.pth", tag_list="tags.txt", thresholds="thresholds.txt")
    return {setting: str(folder / name) for setting, name in files.items()}
