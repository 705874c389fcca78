# SPDX-License-Identifier: Apache-2.0
"""Writes a trained encoder as a folder that transformers opens as a SigLIP model, without torch.

Beside transformers' files it holds what loads the same encoder back into JAX (`mtv.json`), our
outputs on fixed inputs (`golden.npz`), and the state of the comparison with PyTorch
(`parity.json`, which `tools.export_check` fills).
"""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from input_pipeline.tokenizer import Tokenizer
from mtv_jax.core.errors import UserError
from mtv_jax.interop import golden, name_map
from mtv_jax.interop.card import model_card
from mtv_jax.interop.hf_files import TOKENIZER_MODEL, hf_files
from mtv_jax.interop.preprocessing import preprocessing_spec
from mtv_jax.models.encoder import Encoder

MODEL_FILE = "mtv.json"
PARITY_FILE = "parity.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT = 1
TOLERANCE = 1e-4  # of float32 embeddings and logits, ours against theirs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """What is exported.

    Attributes:
        encoder: the model.
        params: `{"image": …, "text": …}`, arrays of JAX or NumPy.
        logit_scale: log of the temperature factor.
        logit_bias: added to the logits.
        tokenizer: path of the SentencePiece model.
        title: heading of the model card.
        numbers: measures to state in the model card.
        provenance: JSON values that travel along: run, step, config, data.
    """

    encoder: Encoder
    params: Mapping[str, Any]
    logit_scale: float
    logit_bias: float
    tokenizer: str
    title: str = "SigLIP encoder"
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def save_hf(directory: str | os.PathLike[str], export: Export) -> None:
    """Writes the folder; files of an earlier export are replaced.

    `mtv.json` goes first and comes back last, so an export that was killed does not load.

    Raises:
        UserError: a model that SiglipModel cannot express, a tokenizer that does not fit it, or a
            folder that cannot be written.
    """
    encoder = export.encoder
    tokenizer = Tokenizer(export.tokenizer, encoder.text_length)
    _check_exportable(encoder, tokenizer)
    spec = preprocessing_spec(encoder, tokenizer)
    root = _prepare(pathlib.Path(directory))
    params = {
        "image": export.params["image"],
        "text": export.params["text"],
        "logit_scale": np.float32(export.logit_scale),
        "logit_bias": np.float32(export.logit_bias),
    }
    _write_weights(root / WEIGHTS_FILE, name_map.to_hf(params))
    for name, content in hf_files(encoder).items():
        _write_json(root / name, content)
    shutil.copyfile(export.tokenizer, root / TOKENIZER_MODEL)
    np.savez_compressed(root / golden.FILE, **golden.golden_arrays(encoder, params, tokenizer))
    card = model_card(
        encoder,
        title=export.title,
        numbers=export.numbers,
        preprocessing=spec,
        provenance=export.provenance,
    )
    (root / "README.md").write_text(card, encoding="utf-8")
    remedy = "python -m tools.export_check compares this folder with PyTorch"
    _write_json(root / PARITY_FILE, {"status": "parity not run", "remedy": remedy})
    _write_json(
        root / MODEL_FILE,
        {
            "format": FORMAT,
            "encoder": dataclasses.asdict(dataclasses.replace(encoder, has_mask_token=False)),
            "preprocessing": spec,
            "provenance": dict(export.provenance),
        },
    )


def _check_exportable(encoder: Encoder, tokenizer: Tokenizer) -> None:
    if encoder.pooling != "map":
        raise UserError(
            f"SiglipModel pools by attention, this model by {encoder.pooling}; "
            "only model.pooling=map can be exported"
        )
    if tokenizer.vocab_size > encoder.vocab_size:
        raise UserError(
            f"{tokenizer.path} has {tokenizer.vocab_size} ids, the model embeds "
            f"{encoder.vocab_size}; give the tokenizer that the model was trained with"
        )


def _prepare(root: pathlib.Path) -> pathlib.Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / MODEL_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the export to {root}: {error}") from error
    return root


def _write_weights(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes, then reads back and compares: the writer has scrambled arrays before."""
    temporary = path.with_suffix(".tmp")
    safetensors.numpy.save_file(dict(tensors), temporary, metadata={"format": "pt"})
    with safetensors.safe_open(temporary, framework="numpy") as written:
        for key, tensor in tensors.items():
            if not np.array_equal(written.get_tensor(key), tensor, equal_nan=True):
                raise RuntimeError(f"{key} reads back from {path} other than it was written")
    temporary.chmod(0o644)  # the writer's files are its owner's alone
    os.replace(temporary, path)


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
