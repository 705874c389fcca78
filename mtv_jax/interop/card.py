# SPDX-License-Identifier: Apache-2.0
"""The model card: what the folder holds, how to read it, and only the numbers it was given."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mtv_jax.interop.trained import TrainedEncoder

_TEMPLATE = """\
---
library_name: transformers
pipeline_tag: {pipeline}
tags: [siglip, vision, jax]
---

# {title}

{towers} Trained with mtv_jax (multi-task vision pretraining in JAX).

## Numbers

{numbers}

## Use

PyTorch, with `pip install torch transformers {packages}`:

```python
{torch}
```

JAX, with mtv_jax:

```python
import mtv_jax.interop

encoder = mtv_jax.interop.load(DIR)
{jax}
```

## Preprocessing

```json
{preprocessing}
```

{differences}
{heads}
## Data

{data}

## Files

`model.safetensors` (float32), `config.json` and the other configs{tokenizer}: as transformers reads
them. `mtv.json`: the model for mtv_jax, preprocessing, provenance. `golden.npz`: fixed inputs and
our outputs on them. `parity.json`: whether both implementations were compared, and how they agree.

## Provenance

```json
{provenance}
```
"""

_BOTH = {
    "pipeline": "zero-shot-image-classification",
    "towers": "A pair of image and text towers in SigLIP's architecture: {image}, {text_tower} "
    "text tower of {text_length} tokens.",
    "packages": "sentencepiece protobuf pillow",
    "torch": """\
from transformers import AutoModel, AutoProcessor

model, processor = AutoModel.from_pretrained(DIR), AutoProcessor.from_pretrained(DIR)
inputs = processor(
    text=["a photo of a cat"], images=[image], return_tensors="pt",
    padding="max_length", truncation=True,
)
logits = model(**inputs).logits_per_image  # padding to the full length is not optional:
# the text tower pools at the last slot""",
    "jax": 'logits = encoder.logits([image], ["a photo of a cat"])',
    "differences": """\
Where transformers differs: it deletes underscores where training turned them into spaces; it
reads "</s>" and "<unk>" inside a text as special tokens; with torchvision installed it resizes
with torchvision instead of Pillow, up to rounding; at other resolutions
(`interpolate_pos_encoding`) it resamples position embeddings with a = -0.75, we with a = -0.5.
""",
    "tokenizer": " and tokenizer files",
}
_IMAGE_ONLY = {
    "pipeline": "image-feature-extraction",
    "towers": "An image tower in SigLIP's architecture: {image}. There is no text tower.{pools}",
    "packages": "pillow",
    "torch": """\
from transformers import AutoImageProcessor, SiglipVisionModel

model = SiglipVisionModel.from_pretrained(DIR)
inputs = AutoImageProcessor.from_pretrained(DIR)([image], return_tensors="pt")
patch_tokens = model(**inputs).last_hidden_state""",
    "jax": """\
from mtv_jax.core.passes import Wants

patch_tokens = encoder.encode_image(encoder.pixels([image]), Wants(tokens=True)).tokens""",
    "differences": """\
Where transformers differs: with torchvision installed it resizes with torchvision instead of
Pillow, up to rounding; at other resolutions (`interpolate_pos_encoding`) it resamples position
embeddings with a = -0.75, we with a = -0.5.
""",
    "tokenizer": "",
}

_UNTRAINED_POOLING = (
    " No objective read its pooled vector (`pooler_output`), which therefore means nothing: use "
    "the patch tokens."
)

_HEADS = """\

## Heads

`heads.safetensors` (float32) holds the heads of: {objectives}. Keys are `HEAD/LAYER/…/kernel` and
`…/bias`; a dense kernel is [in, out], a convolution's [height, width, in, out] over channels-last
input, a transposed convolution's whose stride is its kernel [in, height, width, out]. `mtv.json`
has their settings under "objectives"; the class that each names documents what it computes.
`golden.npz` has their outputs. `encoder.maps([image])` predicts: {maps}.
"""


_COMMERCIAL = {True: "allowed", False: "NOT allowed", None: "not recorded"}


def model_card(trained: TrainedEncoder, *, title: str, numbers: Mapping[str, float]) -> str:
    """README.md of an exported folder."""
    encoder = trained.encoder
    words = _BOTH if encoder.has_text_tower else _IMAGE_ONLY
    image = (
        f"{encoder.image_tower} image tower at {encoder.image_size} pixels (patches of "
        f"{encoder.patch_size}, {encoder.embed_dim} wide)"
    )
    towers = words["towers"].format(
        image=image,
        text_tower=encoder.text_tower,
        text_length=encoder.text_length,
        pools="" if trained.pools else _UNTRAINED_POOLING,
    )
    rows = [f"| {name} | {value:.4g} |" for name, value in numbers.items()]
    table = "\n".join(["| measure | value |", "|---|---|", *rows])
    return _TEMPLATE.format(
        **{**words, "towers": towers},
        title=title,
        numbers=table if rows else "None were given to the export.",
        preprocessing=json.dumps(trained.preprocessing, indent=2, ensure_ascii=False),
        heads=_describe_heads(trained),
        data=_describe_data(trained.provenance.get("data") or []),
        provenance=json.dumps(dict(trained.provenance), indent=2, ensure_ascii=False),
    )


def _describe_heads(trained: TrainedEncoder) -> str:
    if not trained.objectives:
        return ""
    maps = [f"`{name}/{key}`" for name in trained.objectives for key in trained.map_names(name)]
    return _HEADS.format(objectives=", ".join(trained.objectives), maps=", ".join(maps))


def labels_not_for_sale(provenance: Mapping[str, Any]) -> list[str]:
    """The labels that a model learned from whose terms forbid commercial use."""
    labels = [entry for store in provenance.get("data") or [] for entry in store["labels"]]
    return [
        f"{label['sidecar']} by {label['maker']} ({label['licence']})"
        for label in labels
        if label["commercial"] is False
    ]


def _describe_data(stores: Sequence[Mapping[str, Any]]) -> str:
    """What it learned from, and on what terms labels may be used."""
    if not stores:
        return "It was not recorded what this model learned from."
    lines = [f"- {s['store']}: {s['rows']:,} images, weight {s['weight']:g}" for s in stores]
    rows = [
        f"| {store['store']} | {label['sidecar']} | {label['maker']} | {label['licence']} | "
        f"{_COMMERCIAL[label['commercial']]} |"
        for store in stores
        for label in store["labels"]
    ]
    if not rows:
        return "\n".join([*lines, "", "No labels of other models were read."])
    header = ["| store | labels | made by | licence | commercial use |", "|---|---|---|---|---|"]
    return "\n".join([*lines, "", *header, *rows])
