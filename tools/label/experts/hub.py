# SPDX-License-Identifier: Apache-2.0
"""Weights and processors in the layout of `transformers`: a folder, or an id of the hub."""

import dataclasses
import pathlib
from types import ModuleType
from typing import Any, NamedTuple

from mtv_jax.core.errors import UserError
from tools.label.base import Expert, digest_of


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A network and what prepares its input.

    Attributes:
        model: placed, ready to infer.
        processor: of `transformers`.
        digest: sha256 of the weights.
    """

    model: Any
    processor: Any
    digest: str


class Packages(NamedTuple):
    """PyTorch and transformers."""

    torch: ModuleType
    transformers: ModuleType


def packages() -> Packages:
    """The packages that experts need, and this project does not.

    Raises:
        UserError: one of them is missing.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(
            f"experts need PyTorch and transformers ({error}): pip install torch transformers"
        ) from error
    return Packages(torch, transformers)


def load(expert: Expert, source: str, model: Any, processor: Any, *, device: str) -> Loaded:
    """A network from a folder, or from the hub's cache or the hub itself.

    Args:
        expert: whose it is, for the message.
        source: the folder or id.
        model: Auto class of the network.
        processor: Auto class of the processor.
        device: see `placed`.

    Raises:
        UserError: it is not there, or not such a network.
    """
    try:
        folder = _folder(source)
        network = model.from_pretrained(folder)
        prepare = processor.from_pretrained(folder)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"no weights at {source!r} ({reason}): give --config.experts.{expert.name}.weights a "
            f"folder that save_pretrained wrote, or download https://huggingface.co/{source} "
            f"({expert.licence.name})"
        ) from error
    files = sorted(pathlib.Path(folder).glob("*.safetensors"))
    return Loaded(placed(network, device), prepare, digest_of(*files))


def placed(model: Any, device: str) -> Any:
    """A network ready to infer: float32 on a CPU, bfloat16 elsewhere.

    Args:
        model: of PyTorch.
        device: "" for a GPU where there is one.
    """
    torch = packages().torch
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device, torch.float32 if device == "cpu" else torch.bfloat16).eval()


def _folder(source: str) -> str:
    if pathlib.Path(source).is_dir():
        return source
    from huggingface_hub import snapshot_download

    return snapshot_download(source)
