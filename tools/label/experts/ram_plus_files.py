# SPDX-License-Identifier: Apache-2.0
"""What RAM++ reads: the published files, of which the user has copies, and images.

Weights, tag list and thresholds are not part of this repository; a missing file's error says where
each is published. Only loading the network imports PyTorch.
"""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mtv_jax.core.errors import UserError

if TYPE_CHECKING:
    from tools.label.experts.ram_plus_network import RamPlus, Shape

IMAGE_SIZE = 384
DTYPES = ("float32", "bfloat16")
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_WEIGHTS = (
    "ram_plus_swin_large_14m.pth from "
    "https://huggingface.co/xinyu1205/recognize-anything-plus-model (Apache-2.0)"
)
_LISTS = (
    "ram/data/ram_tag_list.txt and ram_tag_list_threshold.txt of "
    "https://github.com/xinyu1205/recognize-anything (Apache-2.0)"
)
_BIAS_TABLE = re.compile(
    r"visual_encoder\.layers\.(\d+)\.blocks\.\d+\.attn\.relative_position_bias_table"
)
_RECOMPUTED = ("relative_position_index", "attn_mask")  # depend on sizes only


@dataclasses.dataclass(frozen=True, kw_only=True)
class TagList:
    """The tags in the network's order, and the probability each must exceed, float32 [tags]."""

    names: tuple[str, ...]
    thresholds: np.ndarray


def read_tags(tags: str | os.PathLike, thresholds: str | os.PathLike) -> TagList:
    """Two text files of equally many lines: one tag a line, one threshold a line.

    Raises:
        UserError: no such file, a line that is empty or no probability, unequal counts.
    """
    names, values = _lines(tags), _lines(thresholds)
    if len(names) != len(values):
        raise UserError(
            f"{tags} has {len(names)} tags but {thresholds} has {len(values)} thresholds; "
            f"give both files of one release: {_LISTS}"
        )
    return TagList(
        names=tuple(names),
        thresholds=np.array(
            [_probability(thresholds, n, text) for n, text in enumerate(values, 1)], np.float32
        ),
    )


def preprocess(image: np.ndarray) -> np.ndarray:
    """What the network sees: the image squashed to a square, antialiased, then normalised.

    Args:
        image: [h, w, 3], uint8.

    Returns:
        [3, 384, 384], float32.
    """
    square = Image.fromarray(image).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    pixels = (np.asarray(square, np.float32) / 255 - _MEAN) / _STD
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def load_ram_plus(
    *,
    weights: str | os.PathLike,
    tags: str | os.PathLike,
    thresholds: str | os.PathLike,
    device: str = "cpu",
    dtype: str = "float32",
) -> "RamPlus":
    """The network with its published weights, ready for `tag`.

    Args:
        weights: the checkpoint.
        tags: the tag list.
        thresholds: one probability per tag.
        device: PyTorch's name of it.
        dtype: one of `DTYPES`, of weights and activations.

    Raises:
        UserError: no PyTorch, a missing or unreadable file, or weights that do not fit.
    """
    if dtype not in DTYPES:
        raise UserError(f"RAM++ runs in {' or '.join(DTYPES)}, not {dtype}")
    try:
        import torch

        from tools.label.experts.ram_plus_network import RamPlus
    except ImportError as error:
        raise UserError(
            f"RAM++ needs PyTorch ({error}); `make test-torch` installs it, or pip install torch"
        ) from error
    tag_list = read_tags(tags, thresholds)
    state = _read_state(pathlib.Path(weights))
    with torch.device("meta"):  # the checkpoint brings every parameter
        network = RamPlus(tag_list, _shape_of(state))
    misfits = _misfits(network.state_dict(), state)
    if misfits:
        raise UserError(
            f"{weights} does not fit RAM++ (Swin-L) with the {len(tag_list.names)} tags of {tags}: "
            f"{'; '.join(misfits)}; give {_WEIGHTS} and its tag list"
        )
    network.load_state_dict(state, assign=True)
    network.requires_grad_(False)
    return network.eval().to(device=device, dtype=getattr(torch, dtype))


def _read_state(path: pathlib.Path) -> dict[str, Any]:
    import torch

    if not path.is_file():
        raise UserError(f"{path}: no such file; download {_WEIGHTS}")
    try:  # mapped: more than half of the file is the optimiser's state
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return {
            # An earlier name of the decoder, which the published loader accepts too.
            name.replace("vision_multi", "tagging_head"): value
            for name, value in checkpoint["model"].items()
            if not name.endswith(_RECOMPUTED)
        }
    except Exception as error:  # a broken file, or one that holds code, raises whatever it likes
        raise UserError(
            f'{path} holds no weights under "model" that can be read ({type(error).__name__}); '
            f"download {_WEIGHTS} again"
        ) from error


def _shape_of(state: Mapping[str, Any]) -> "Shape":
    """Sizes of the network that a checkpoint is of; the published ones where it does not say."""
    from tools.label.experts.ram_plus_network import Shape

    tables: dict[int, list[Any]] = {}
    for name, value in state.items():
        if found := _BIAS_TABLE.fullmatch(name):
            tables.setdefault(int(found[1]), []).append(value)
    try:
        stages = [tables[index] for index in range(len(tables))]
        return Shape(
            window_size=(math.isqrt(stages[0][0].shape[0]) + 1) // 2,
            embed_dim=state["visual_encoder.patch_embed.proj.weight"].shape[0],
            depths=tuple(map(len, stages)),
            num_heads=tuple(stage[0].shape[1] for stage in stages),
            decoder_dim=state["fc.weight"].shape[1],
        )
    except (LookupError, AttributeError):
        return Shape()


def _misfits(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What keeps `found` from being loaded, in words; nothing when it fits."""
    shapes = [
        f"{name} {list(found[name].shape)} instead of {list(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    kinds = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": shapes,
    }
    return [f"{_first(names)} {kind}" for kind, names in kinds.items() if names]


def _first(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _lines(path: str | os.PathLike) -> list[str]:
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; download {_LISTS}")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text ({error.reason}); download {_LISTS}") from error
    if not all(lines):
        raise UserError(f"line {lines.index('') + 1} of {path} is empty; download {_LISTS}")
    return lines


def _probability(path: str | os.PathLike, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f'line {line} of {path} is "{text}", no probability; download {_LISTS}')
    return value
