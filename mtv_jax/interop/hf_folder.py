# SPDX-License-Identifier: Apache-2.0
"""Reads folders that transformers wrote: SiglipModel, SiglipVisionModel and Siglip2Model.

Their configs leave out what equals a default, so the defaults stand here. A Siglip2Model reads
patches of any aspect ratio; here it reads squares of `num_patches` patches, at which its position
embeddings are not resampled. Its text tower, like the others, attends to padding, as in training
(arXiv 2303.15343, 2502.14786).
"""

import json
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from input_pipeline.image_spec import ImageSpec
from input_pipeline.tokenizer import HUB_FILE, Tokenizer
from mtv_jax.core.errors import UserError
from mtv_jax.interop.hf_files import RESAMPLE, TOKENIZER_MODEL
from mtv_jax.interop.name_map import from_hf, keys_of
from mtv_jax.interop.trained import LOGITS_HEAD, TrainedEncoder
from mtv_jax.models.encoder import Encoder
from mtv_jax.models.sizes import TowerSize, name_of_size

CONFIG_FILE = "config.json"
MODEL_TYPES = ("siglip", "siglip_vision_model", "siglip2", "siglip2_vision_model")
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_LOGITS = ("logit_scale", "logit_bias")
_PATCHES = "vision_model.embeddings.patch_embedding.weight"
_LAST_NORM = "post_layernorm.weight"
_TOWER = dict(
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    hidden_act="gelu_pytorch_tanh",
    layer_norm_eps=1e-6,
)
_VISION = dict(
    _TOWER, image_size=224, patch_size=16, num_channels=3, vision_use_head=True, num_patches=256
)
_TEXT = dict(_TOWER, vocab_size=32_000, max_position_embeddings=64, projection_size=None)
_ONLY = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "num_channels": 3}


def is_hf_folder(root: pathlib.Path) -> bool:
    """Whether transformers would open a SigLIP model there."""
    path = root / CONFIG_FILE
    return path.is_file() and _json(path).get("model_type") in MODEL_TYPES


def read_hf_folder(root: pathlib.Path) -> TrainedEncoder:
    """The encoder in a folder of transformers.

    Args:
        root: folder with `config.json` and safetensors; tokenizer and preprocessor files are read
            when they are there.

    Raises:
        UserError: weights that are absent, incomplete, or of a model that differs from ours in
            what our towers cannot do.
    """
    config = _json(root / CONFIG_FILE)
    encoder = _encoder(root, config)
    tensors = _canonical(root, _read_tensors(root))
    shapes = dict(jax.eval_shape(encoder.init, jax.random.key(0)))
    if encoder.has_text_tower:
        shapes |= dict.fromkeys(_LOGITS, np.zeros(()))
    known = keys_of(shapes)
    params = from_hf({key: x for key, x in tensors.items() if key in known}, shapes)
    logits = {key: params.pop(key) for key in _LOGITS if key in params}
    images, notes = _images(root, encoder, config)
    tokenizer = _tokenizer(root, encoder)
    if encoder.has_text_tower and not tokenizer:
        notes.append(f"no tokenizer ({TOKENIZER_MODEL} or {HUB_FILE}): it can read no texts")
    unexpected = sorted(tensors.keys() - known)
    return TrainedEncoder(
        encoder=encoder,
        params={"backbone": params, "heads": {LOGITS_HEAD: logits} if logits else {}},
        images=images,
        tokenizer=tokenizer,
        pools=encoder.pooling == "map",
        provenance={"folder": str(root), "model_type": config["model_type"]},
        report=_report(root, len(known), unexpected, notes),
    )


def _encoder(root: pathlib.Path, config: Mapping[str, Any]) -> Encoder:
    kind = config["model_type"]
    alone = kind.endswith("_vision_model")
    vision = {**_VISION, **(config if alone else config.get("vision_config") or {})}
    text = {**_TEXT, **(config.get("text_config") or {})}
    for tower in [vision] if alone else [vision, text]:
        for name in _ONLY.keys() & tower.keys():
            if tower[name] != _ONLY[name]:
                raise UserError(f"{root} has {name} {tower[name]!r}; only {_ONLY[name]!r} is built")
    patch_size, side = vision["patch_size"], vision["image_size"]
    if kind.startswith("siglip2"):
        side = math.isqrt(vision["num_patches"]) * patch_size
    image_dims = _dims(vision)
    if not alone and (text["projection_size"] or text["hidden_size"]) != image_dims.embed_dim:
        raise UserError(f"{root} projects texts to another width than the image tower has")
    return Encoder(
        image_size=side,
        patch_size=patch_size,
        image_tower=name_of_size(image_dims),
        text_tower=name_of_size(image_dims if alone else _dims(text)),
        vocab_size=text["vocab_size"],
        text_length=text["max_position_embeddings"],
        pooling="map" if vision["vision_use_head"] else "mean",
        has_text_tower=not alone,
        dtype="float32",
    )


def _dims(tower: Mapping[str, Any]) -> TowerSize:
    return TowerSize(
        embed_dim=tower["hidden_size"],
        num_layers=tower["num_hidden_layers"],
        mlp_dim=tower["intermediate_size"],
        num_heads=tower["num_attention_heads"],
    )


def _read_tensors(root: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of one file or of several, float32."""
    index = root / _INDEX
    names = sorted({*_json(index)["weight_map"].values()}) if index.is_file() else [_WEIGHTS]
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        try:
            tensors |= safetensors.numpy.load_file(root / name)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(
                f"cannot read the weights {root / name} ({error}); download them again, or write "
                "safetensors with save_pretrained of transformers"
            ) from error
    return {key: np.asarray(tensor, np.float32) for key, tensor in tensors.items()}


def _canonical(root: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors under the keys of `SiglipModel`, whatever wrapped it, patches as a convolution."""
    anchors = [key.removesuffix(_LAST_NORM) for key in tensors if key.endswith(_LAST_NORM)]
    if len(anchors) != 1:
        raise UserError(f"{root} holds {len(anchors)} image towers (…{_LAST_NORM}), not one")
    wrapper = anchors[0].removesuffix("vision_model.")
    if wrapper == anchors[0]:  # the tower alone
        renamed = {f"vision_model.{key.removeprefix(wrapper)}": x for key, x in tensors.items()}
    else:
        renamed = {key.removeprefix(wrapper): x for key, x in tensors.items()}
    patches = renamed.get(_PATCHES)
    if patches is not None and patches.ndim == 2:
        side = math.isqrt(patches.shape[1] // 3)
        conv = patches.reshape(-1, side, side, 3).transpose(0, 3, 1, 2)
        renamed[_PATCHES] = np.ascontiguousarray(conv)
    return renamed


def _images(
    root: pathlib.Path, encoder: Encoder, config: Mapping[str, Any]
) -> tuple[ImageSpec, list[str]]:
    """What the image tower was trained to read, and remarks."""
    processor = _processor(root)
    if processor is None:
        return ImageSpec(), ["no preprocessor_config.json: images are read as SigLIP reads them"]
    _check_processor(root, encoder, processor)
    kernels = {number: kernel for kernel, number in RESAMPLE.items()}
    default = 2 if config["model_type"].startswith("siglip2") else 3
    number = processor.get("resample", default)
    if number not in kernels:
        raise UserError(f"{root} resamples images by Pillow's {number}, not one of {kernels}")
    mean, deviation = (_uniform(root, processor, name) for name in ("image_mean", "image_std"))
    if not processor.get("do_normalize", True):
        mean, deviation = 0.0, 1.0
    spec = ImageSpec(resample=kernels[number], low=-mean / deviation, high=(1 - mean) / deviation)
    squares = f"images of any shape are read as squares of {encoder.image_size} pixels"
    return spec, [squares] if "max_num_patches" in processor else []


def _processor(root: pathlib.Path) -> dict[str, Any] | None:
    if (path := root / "preprocessor_config.json").is_file():
        return _json(path)
    if (path := root / "processor_config.json").is_file():
        return _json(path).get("image_processor")
    return None


def _check_processor(root: pathlib.Path, encoder: Encoder, processor: Mapping[str, Any]) -> None:
    side, size = encoder.image_size, processor.get("size")
    square = {"height": side, "width": side}
    if size is not None and size not in (side, square):
        raise UserError(
            f"{root} resizes images to {size}, its image tower has position embeddings for {square}"
        )
    factor = processor.get("rescale_factor", 1 / 255)
    if processor.get("do_center_crop") or not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise UserError(f"{root} crops images or scales them by {factor}; SigLIP does neither")


def _uniform(root: pathlib.Path, processor: Mapping[str, Any], name: str) -> float:
    values = processor.get(name) or [0.5]
    values = values if isinstance(values, list) else [values]
    if len({*values}) != 1:
        raise UserError(f"{root} has the {name} {values}; one for all colours is built")
    return float(values[0])


def _tokenizer(root: pathlib.Path, encoder: Encoder) -> Tokenizer | None:
    names = [name for name in (TOKENIZER_MODEL, HUB_FILE) if (root / name).is_file()]
    if not encoder.has_text_tower or not names:
        return None
    tokenizer = Tokenizer(str(root / names[0]), encoder.text_length)
    if tokenizer.vocab_size > encoder.vocab_size:
        raise UserError(
            f"{tokenizer.path} has {tokenizer.vocab_size} ids, the text tower "
            f"{encoder.vocab_size}; they do not belong together"
        )
    return tokenizer


def _report(root: pathlib.Path, loaded: int, unexpected: list[str], notes: Iterable[str]) -> str:
    """What was read, in words."""
    counts = f"read {root}: {loaded} tensors loaded, 0 missing, {len(unexpected)} unexpected"
    return "\n".join([counts, *(f"unexpected {key}" for key in unexpected), *notes])


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
