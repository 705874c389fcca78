# SPDX-License-Identifier: Apache-2.0
"""Writes a trained encoder as a folder that transformers opens as a SigLIP model, without torch.

Without a text tower it is a `SiglipVisionModel`. Heads that predict something lie beside the
weights in our own names and layouts (`heads.safetensors`, described in the model card).
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

from input_pipeline.tokenizer import HUB_CONFIG, Tokenizer
from mtv_jax.core.config import spec_of
from mtv_jax.core.errors import UserError
from mtv_jax.interop import golden, name_map
from mtv_jax.interop.card import model_card
from mtv_jax.interop.hf_files import TEXT_FILES, hf_files, tokenizer_file
from mtv_jax.interop.trained import LOGITS_HEAD, TrainedEncoder

MODEL_FILE = "mtv.json"
PARITY_FILE = "parity.json"
WEIGHTS_FILE = "model.safetensors"
HEADS_FILE = "heads.safetensors"
FORMAT = 2
TOLERANCE = 1e-4  # of float32 embeddings and logits, ours against theirs


def save_folder(
    directory: str | os.PathLike[str],
    trained: TrainedEncoder,
    *,
    title: str = "SigLIP encoder",
    numbers: Mapping[str, float] | None = None,
) -> None:
    """Writes the folder; files of an earlier export are replaced.

    `mtv.json` goes first and comes back last, so an export that was killed does not load.

    Args:
        directory: made when absent.
        trained: the encoder; of its heads those go along that a prediction needs.
        title: heading of the model card.
        numbers: measures to state in the model card.

    Raises:
        UserError: a model that transformers cannot express, a tokenizer that does not fit it, or a
            folder that cannot be written.
    """
    encoder, tokenizer = trained.encoder, trained.tokenizer
    _check_exportable(trained)
    root = _prepare(pathlib.Path(directory))
    heads = {name: trained.params["heads"][name] for name in _predicting_heads(trained)}
    backbone = trained.params["backbone"]
    logits = trained.params["heads"][LOGITS_HEAD] if encoder.has_text_tower else {}
    _write_weights(root / WEIGHTS_FILE, name_map.to_hf({**backbone, **logits}))
    if heads:
        flat = {key: np.ascontiguousarray(x, np.float32) for key, x in name_map.flatten(heads)}
        _write_weights(root / HEADS_FILE, flat)
    for name, content in hf_files(encoder, trained.images, tokenizer).items():
        _write_json(root / name, content)
    if tokenizer:
        _copy_tokenizer(tokenizer, root)
    np.savez_compressed(root / golden.FILE, **golden.golden_arrays(trained))
    card = model_card(trained, title=title, numbers=numbers or {})
    (root / "README.md").write_text(card, encoding="utf-8")
    remedy = "python -m tools.export_check compares this folder with PyTorch"
    _write_json(root / PARITY_FILE, {"status": "parity not run", "remedy": remedy})
    _write_json(
        root / MODEL_FILE,
        {
            "format": FORMAT,
            "encoder": dataclasses.asdict(dataclasses.replace(encoder, has_mask_token=False)),
            "objectives": {name: spec_of(o) for name, o in trained.objectives.items()},
            "pools": trained.pools,
            "preprocessing": trained.preprocessing,
            "provenance": dict(trained.provenance),
        },
    )


def _predicting_heads(trained: TrainedEncoder) -> list[str]:
    return sorted({name for o in trained.objectives.values() for name in o.heads()})


def _check_exportable(trained: TrainedEncoder) -> None:
    encoder, tokenizer = trained.encoder, trained.tokenizer
    if encoder.pooling != "map":
        raise UserError(
            f"SiglipModel pools by attention, this model by {encoder.pooling}; "
            "only model.pooling=map can be exported"
        )
    if encoder.has_text_tower and LOGITS_HEAD not in trained.params["heads"]:
        raise UserError(
            "the model has a text tower but no logit scale and bias, which a SigLIP folder needs; "
            "train with objectives.sigmoid_vl"
        )
    if encoder.has_text_tower and tokenizer is None:
        raise UserError("the model has a text tower but no tokenizer; an export needs both")
    if tokenizer and tokenizer.vocab_size > encoder.vocab_size:
        raise UserError(
            f"{tokenizer.path} has {tokenizer.vocab_size} ids, the model embeds "
            f"{encoder.vocab_size}; give the tokenizer that the model was trained with"
        )


def _prepare(root: pathlib.Path) -> pathlib.Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
        for name in (MODEL_FILE, HEADS_FILE, *TEXT_FILES):
            (root / name).unlink(missing_ok=True)  # not every export writes them again
    except OSError as error:
        raise UserError(f"cannot write the export to {root}: {error}") from error
    return root


def _copy_tokenizer(tokenizer: Tokenizer, root: pathlib.Path) -> None:
    """Its file, and for one of transformers the file beside it."""
    source = pathlib.Path(tokenizer.path)
    shutil.copyfile(source, root / tokenizer_file(tokenizer))
    if tokenizer.is_gemma:
        shutil.copyfile(source.with_name(HUB_CONFIG), root / HUB_CONFIG)


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
