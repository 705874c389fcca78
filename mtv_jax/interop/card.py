# SPDX-License-Identifier: Apache-2.0
"""The model card: what the folder holds, how to read it, and only the numbers it was given."""

import json
from collections.abc import Mapping
from typing import Any

from mtv_jax.models.encoder import Encoder

_TEMPLATE = """\
---
library_name: transformers
pipeline_tag: zero-shot-image-classification
tags: [siglip, vision, jax]
---

# {title}

A pair of image and text towers in SigLIP's architecture: {image_tower} image tower at
{image_size} pixels (patches of {patch_size}, {embed_dim} wide), {text_tower} text tower of
{text_length} tokens. Trained with mtv_jax (multi-task vision pretraining in JAX).

## Numbers

{numbers}

## Use

PyTorch, with `pip install torch transformers sentencepiece protobuf pillow`:

```python
from transformers import AutoModel, AutoProcessor

model, processor = AutoModel.from_pretrained(DIR), AutoProcessor.from_pretrained(DIR)
inputs = processor(
    text=["a photo of a cat"], images=[image], return_tensors="pt",
    padding="max_length", truncation=True,
)
logits = model(**inputs).logits_per_image
```

Padding to the full length is not optional: the text tower pools at the last slot.

JAX, with mtv_jax:

```python
import mtv_jax.interop

encoder = mtv_jax.interop.load(DIR)
logits = encoder.logits([image], ["a photo of a cat"])
```

## Preprocessing

```json
{preprocessing}
```

Where transformers differs: it deletes underscores where training turned them into spaces; it
reads "</s>" and "<unk>" inside a text as special tokens; with torchvision installed it resizes
with torchvision instead of Pillow, up to rounding; at other resolutions
(`interpolate_pos_encoding`) it resamples position embeddings with a = -0.75, we with a = -0.5.

## Files

`model.safetensors` (float32), `config.json`, processor and tokenizer files: as transformers reads
them. `mtv.json`: the model for mtv_jax, preprocessing, provenance. `golden.npz`: fixed inputs and
our outputs on them. `parity.json`: whether both implementations were compared, and how they agree.

## Provenance

```json
{provenance}
```
"""


def model_card(
    encoder: Encoder,
    *,
    title: str,
    numbers: Mapping[str, float],
    preprocessing: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> str:
    """README.md of an exported folder."""
    rows = [f"| {name} | {value:.4g} |" for name, value in numbers.items()]
    table = "\n".join(["| measure | value |", "|---|---|", *rows])
    return _TEMPLATE.format(
        title=title,
        image_tower=encoder.image_tower,
        text_tower=encoder.text_tower,
        image_size=encoder.image_size,
        patch_size=encoder.patch_size,
        embed_dim=encoder.embed_dim,
        text_length=encoder.text_length,
        numbers=table if rows else "None were given to the export.",
        preprocessing=json.dumps(preprocessing, indent=2, ensure_ascii=False),
        provenance=json.dumps(provenance, indent=2, ensure_ascii=False),
    )
