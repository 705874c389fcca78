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


def load(
    expert: Expert, source: str, model: Any, processor: Any, *, published: str, device: str
) -> Loaded:
    """A network from a folder, or from the hub's cache or the hub itself.

    Args:
        expert: whose it is, for the message.
        source: the folder or id.
        model: Auto class of the network.
        processor: Auto class of the processor.
        published: id of the weights that its authors published.
        device: see `placed`.

    Raises:
        UserError: it is not there, or not such a network.
    """
    try:
        folder = _folder(source)
        network, told = model.from_pretrained(folder, output_loading_info=True)
        prepare = processor.from_pretrained(folder)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise _unusable(expert, source, reason, published) from error
    if absent := sorted(told["missing_keys"]):  # transformers would fill them at random
        reason = f"they lack {absent[0]}, one of {len(absent)}"
        raise _unusable(expert, source, reason, published)
    return Loaded(placed(network, device), prepare, digest_of(*_files(folder)))


def _unusable(expert: Expert, source: str, reason: str, published: str) -> UserError:
    return UserError(
        f"no weights of {expert.name} at {source!r} ({reason}): give "
        f"--config.experts.{expert.name}.weights a folder that save_pretrained wrote, or download "
        f"https://huggingface.co/{published} ({expert.licence.name})"
    )


def _files(folder: str) -> list[pathlib.Path]:
    """Those that `from_pretrained` reads weights from: the older format where it is alone."""
    root = pathlib.Path(folder)
    return sorted(root.glob("*.safetensors")) or sorted(root.glob("*.bin"))


def placed(model: Any, device: str) -> Any:
    """A network ready to infer: float32 on a CPU, bfloat16 elsewhere.

    Args:
        model: of PyTorch.
        device: "" for a GPU where there is one.
    """
    torch = packages().torch
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        torch.set_num_threads(1)  # sums, and so labels, would depend on the number of cores
    return model.to(device, torch.float32 if device == "cpu" else torch.bfloat16).eval()


def _folder(source: str) -> str:
    if pathlib.Path(source).is_dir():
        return source
    from huggingface_hub import snapshot_download

    return snapshot_download(source)
