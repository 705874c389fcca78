# SPDX-License-Identifier: Apache-2.0
"""Reads a folder as a JAX encoder: our own export, bit for bit, or what transformers wrote."""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from input_pipeline.image_spec import ImageSpec
from input_pipeline.tokenizer import Tokenizer
from mtv_jax.core.config import build, resolve
from mtv_jax.core.errors import UserError
from mtv_jax.interop.hf_folder import is_hf_folder, read_hf_folder
from mtv_jax.interop.name_map import from_hf, unflatten
from mtv_jax.interop.preprocessing import images_of, spec_differences
from mtv_jax.interop.save import FORMAT, HEADS_FILE, MODEL_FILE, WEIGHTS_FILE
from mtv_jax.interop.trained import LOGITS_HEAD, TrainedEncoder
from mtv_jax.models.encoder import Encoder


def load_folder(
    directory: str | os.PathLike[str], *, trusted: Iterable[str] = ()
) -> TrainedEncoder:
    """The encoder in a folder.

    Args:
        directory: what `mtv_jax.export` wrote, or a SigLIP model of transformers.
        trusted: package roots whose objectives it may name besides our own.

    Raises:
        UserError: no export there, an incomplete one, or one of another format.
    """
    root = pathlib.Path(directory)
    if not (root / MODEL_FILE).is_file() and is_hf_folder(root):
        return read_hf_folder(root)
    description = _read_description(root)
    encoder = build(Encoder, {**description["encoder"], "dtype": "float32"}, "mtv.json encoder")
    loaded = TrainedEncoder(
        encoder=encoder,
        params=_read_params(root, encoder),
        objectives={
            name: resolve(spec, f"mtv.json objectives.{name}", trusted=trusted, name=name)
            for name, spec in description["objectives"].items()
        },
        images=_images(root, description["preprocessing"]),
        tokenizer=_tokenizer(root, encoder, description["preprocessing"]),
        pools=description["pools"],
        provenance=description["provenance"],
    )
    _check_preprocessing(root, loaded.preprocessing, description["preprocessing"])
    for objective in loaded.objectives:
        _check_heads(root, loaded, objective)
    return loaded


def _read_params(root: pathlib.Path, encoder: Encoder) -> dict[str, Any]:
    scalars = {"logit_scale": np.zeros(()), "logit_bias": np.zeros(())}
    shapes = jax.eval_shape(encoder.init, jax.random.key(0))
    if encoder.has_text_tower:
        shapes = {**shapes, **scalars}
    tree = from_hf(_read_weights(root / WEIGHTS_FILE), shapes)
    logits = {key: tree.pop(key) for key in scalars if key in tree}
    path = root / HEADS_FILE
    heads = unflatten(_read_weights(path)) if path.is_file() else {}
    return {"backbone": tree, "heads": {**heads, **({LOGITS_HEAD: logits} if logits else {})}}


def _images(root: pathlib.Path, spec: Mapping[str, Any]) -> ImageSpec:
    try:
        return images_of(spec)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{root} was exported with a preprocessing of images that this version does not know "
            f"({error}); use the version that wrote it"
        ) from error


def _tokenizer(root: pathlib.Path, encoder: Encoder, spec: Mapping[str, Any]) -> Tokenizer | None:
    if not encoder.has_text_tower:
        return None
    return Tokenizer(str(root / spec["tokenizer"]), encoder.text_length)


def _check_preprocessing(
    root: pathlib.Path, spec: Mapping[str, Any], stored: Mapping[str, Any]
) -> None:
    if different := spec_differences(spec, stored):
        raise UserError(
            f"{root} was exported with another preprocessing ({'; '.join(different)}); restore its "
            "files or use the version that wrote it"
        )


def _check_heads(root: pathlib.Path, loaded: TrainedEncoder, objective: str) -> None:
    """Tries the heads on shapes, so that a wrong file is found now and named."""
    try:
        loaded.map_names(objective)
    except Exception as error:  # whatever a head makes of arrays that are missing or do not fit
        raise UserError(
            f"{root / HEADS_FILE} does not hold the heads of {objective} "
            f"({str(error).splitlines()[0]}); export the model again"
        ) from error


def _read_description(root: pathlib.Path) -> dict[str, Any]:
    path = root / MODEL_FILE
    if not path.is_file():
        raise UserError(
            f"{root} holds no exported model ({MODEL_FILE} is missing) and no SigLIP model of "
            "transformers (config.json); write one with `python -m mtv_jax.export`"
        )
    description = json.loads(path.read_text(encoding="utf-8"))
    if description.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {description.get('format')}, this version reads {FORMAT}; "
            "export the model again"
        )
    return description


def _read_weights(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"cannot read the weights {path}: {error}") from error
