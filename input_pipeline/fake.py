# SPDX-License-Identifier: Apache-2.0
"""Random batches of the right shapes: for tests, smoke runs and benchmarks without data."""

import zlib
from typing import Any

import numpy as np

from input_pipeline.records import sample_shapes
from mtv_jax.core.fields import Field
from mtv_jax.core.position import split_position

_VOCABULARY = 32  # small enough for any tokenizer


def fake_batch(
    fields: tuple[Field, ...],
    *,
    batch_size: int,
    canvas: int,
    text_length: int,
    first_position: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """A valid batch of noise, shaped as the loader would shape it."""
    batch: dict[str, Any] = {}
    for name, entry in sample_shapes(fields, canvas=canvas, text_length=text_length).items():
        if name == "valid":
            batch[name] = {k: np.ones(batch_size, np.bool_) for k in entry}
            continue
        shape, dtype = entry
        generator = np.random.default_rng(
            [seed, zlib.crc32(name.encode())]
        )  # whatever is beside it
        batch[name] = _noise(generator, (batch_size, *shape), np.dtype(dtype))
    batch["position"] = split_position(first_position + np.arange(batch_size))
    batch["record_id"] = np.stack([np.arange(batch_size)] * 3, axis=-1).astype(np.int32)
    batch["image_size"] = np.full((batch_size, 2), canvas, np.int32)
    return batch


def _noise(generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype == np.float32:
        return np.sort(generator.random(shape, np.float32), axis=-1)
    high = {"u": min(np.iinfo(dtype).max, 65535) if dtype.kind == "u" else 0}.get(
        dtype.kind, _VOCABULARY
    )
    return generator.integers(0, high, shape).astype(dtype)
