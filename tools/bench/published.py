# SPDX-License-Identifier: Apache-2.0
"""The experts' networks in their published sizes, and processors with the published settings.

Weights are random, and under `torch.device("meta")` there are none: the cost is the same.
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from tools.label.experts import hub

SIDE = 518  # of a square that Depth Anything sees
QUERIES, TOKENS = 32, 16  # of OWLv2: tags of an image by default, tokens of each
_TAGS = 4585  # of RAM++
_IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthSize:
    """Width, depth and heads of the backbone; channels of the decoder."""

    dim: int
    layers: int
    heads: int
    fusion: int
    neck: tuple[int, ...]


DEPTH_SIZES = {
    "small": DepthSize(dim=384, layers=12, heads=6, fusion=64, neck=(48, 96, 192, 384)),
    "base": DepthSize(dim=768, layers=12, heads=12, fusion=128, neck=(96, 192, 384, 768)),
    "large": DepthSize(dim=1024, layers=24, heads=16, fusion=256, neck=(256, 512, 1024, 1024)),
}


def depth_anything(size: DepthSize) -> Any:
    """Depth Anything V2 (arXiv 2406.09414, and its repository's table of sizes)."""
    transformers = hub.packages().transformers
    backbone = transformers.Dinov2Config(
        hidden_size=size.dim,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        image_size=SIDE,
        patch_size=14,
        out_indices=[size.layers * quarter // 4 for quarter in (1, 2, 3, 4)],
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=size.dim,
        neck_hidden_sizes=list(size.neck),
        fusion_hidden_size=size.fusion,
    )
    return transformers.DepthAnythingForDepthEstimation(config).eval()


def owlv2(layers: int = 12, vocabulary: int = 49_408) -> Any:
    """OWLv2-B/16 (arXiv 2306.09683) on squares of 960 pixels.

    Args:
        layers: of either tower; what is not published makes a smaller file.
        vocabulary: number of tokens.
    """
    transformers = hub.packages().transformers
    config = transformers.Owlv2Config(
        text_config=dict(
            num_hidden_layers=layers,
            vocab_size=vocabulary,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
        ),
        vision_config=dict(image_size=960, num_hidden_layers=layers),
        projection_dim=512,
        attn_implementation="eager",  # the other one looks at the values of masks: not on "meta"
    )
    return transformers.Owlv2ForObjectDetection(config).eval()


def ram_plus() -> Any:
    """RAM++ with Swin-L (arXiv 2310.15200) and as many tags as the published list has."""
    from tools.label.experts.ram_plus_files import TagList
    from tools.label.experts.ram_plus_network import RamPlus

    names = tuple(map(str, range(_TAGS)))
    return RamPlus(TagList(names=names, thresholds=np.full(_TAGS, 0.7, np.float32))).eval()


def siglip() -> Any:
    """The image tower of SigLIP B/16 at 224 pixels: texts are embedded once a run."""
    transformers = hub.packages().transformers
    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig()).eval()


def save_depth_anything(folder: pathlib.Path, size: DepthSize) -> str:
    """A folder that the expert loads."""
    transformers = hub.packages().transformers
    depth_anything(size).save_pretrained(folder)
    transformers.DPTImageProcessor(
        size=dict(height=SIDE, width=SIDE),
        ensure_multiple_of=14,
        keep_aspect_ratio=True,
        **_IMAGENET,
    ).save_pretrained(folder)
    return str(folder)


def save_owlv2(folder: pathlib.Path) -> str:
    """A folder that the expert loads: one layer a tower, and a tokenizer that knows letters."""
    transformers = hub.packages().transformers
    letters = [*map(chr, range(ord("a"), ord("z") + 1)), "!"]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    owlv2(layers=1, vocabulary=len(words)).save_pretrained(folder)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({word: number for number, word in enumerate(words)}))
    merges.write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(vocabulary), str(merges), model_max_length=TOKENS, pad_token="!"
    )
    transformers.Owlv2Processor(transformers.Owlv2ImageProcessor(), tokenizer).save_pretrained(
        folder
    )
    return str(folder)
