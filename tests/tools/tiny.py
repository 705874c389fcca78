# SPDX-License-Identifier: Apache-2.0
"""The quick start's config, made tiny."""

import pathlib
from typing import Any

from configs import quickstart
from mtv_jax.core.config import plain


def tiny_config(world: pathlib.Path, tasks: str = "vl") -> dict[str, Any]:
    """Plain values for the stores and the tokenizer of `tests.integration.helpers.tiny_world`."""
    config = quickstart.get_config(f"data={world},tasks={tasks}")
    config.batch_size, config.total_steps = 16, 60
    config.model.update(image_size=16, vocab_size=96, text_length=8)
    config.input.text_length = 8
    config.views.global_crop.size = 16
    config.views.local_crops.update(size=8, count=2)
    config.views.region_phrases.length = 8
    config.views.caption.update(length=8, pooling_slot=7)
    if "retrieval" in config.evals:
        config.evals.retrieval.gallery = 8
    return plain(config)
