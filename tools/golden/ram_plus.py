# SPDX-License-Identifier: Apache-2.0
"""Golden values of `tools/label/experts/ram_plus_network.py`, from the authors' RAM++.

    python -m tools.golden.ram_plus --code DIR --commit SHA --output tests/torch

DIR is a checkout of github.com/xinyu1205/recognize-anything at commit SHA. Its network is run on
made-up weights, once at the published size and once at a small one, and the largest difference of
our logits is printed. OUTPUT receives the names and shapes of the published size's state, and the
small one's results; weights and images are made from seeds and not stored. Needs PyTorch and 6 GB
of memory. The authors' code needs an old transformers; of it and of other packages that these files
import, only what inference touches is stood in for.
"""

import argparse
import contextlib
import importlib
import json
import pathlib
import sys
import tempfile
import types
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np

from mtv_jax.core.errors import UserError, report_user_errors
from tools.label.experts.ram_plus_files import TagList, read_tags

KEYS, RESULTS = "ram_plus_keys.txt", "ram_plus.npz"
SMALL_SWIN: dict[str, Any] = dict(embed_dim=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8))
SMALL_DECODER: dict[str, Any] = dict(decoder_dim=64, decoder_heads=4)
SMALL_TAGS = TagList(
    names=tuple(f"tag {n}" for n in range(12)), thresholds=np.linspace(0.1, 0.9, 12, dtype="f4")
)
_REPOSITORY = "xinyu1205/recognize-anything"
_GAINS = {"wordvec_proj": 8, "self.query": 3}  # else the tags would differ little
_UNUSED = (
    "torchvision.transforms",
    "timm.models.hub",
    "timm.models.vision_transformer",
    "timm.models.registry",
    "timm.models.helpers",
    "fairscale.nn.checkpoint.checkpoint_activations",
    "transformers.file_utils",
    "transformers.modeling_outputs",
    "transformers.utils",
)


@report_user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.golden.ram_plus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--code", required=True, metavar="DIR", help="checkout of their repository")
    parser.add_argument("--commit", required=True, metavar="SHA", help="its commit, for the record")
    parser.add_argument("--output", metavar="DIR", help="where keys and results are stored")
    args = parser.parse_args(argv)
    code = pathlib.Path(args.code)
    with _their_module(code) as module, tempfile.TemporaryDirectory() as scratch:
        keys = _compare_full(module, code / "ram")
        results = _compare_small(module, code / "ram", pathlib.Path(scratch))
    if args.output:
        output = pathlib.Path(args.output)
        command = f"{parser.prog} --code DIR --commit {args.commit} --output {output}"
        lines = [f"# {command}", *(f"{name}\t{shape}" for name, shape in keys.items())]
        (output / KEYS).write_text("\n".join(lines) + "\n", encoding="utf-8")
        np.savez_compressed(output / RESULTS, **results, command=command)


def made_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Weights that let every part be heard, each drawn from a seed that is its name."""
    return {name: _made(name, tuple(shape)) for name, shape in shapes.items()}


def made_images(batch: int) -> np.ndarray:
    """[batch, 3, 384, 384] of patterns at all scales, float32 of unit variance."""
    noise = np.random.RandomState(1).standard_normal
    pyramid = [
        noise((batch, 3, n, n)).repeat(384 // n, 2).repeat(384 // n, 3) for n in (384, 48, 6)
    ]
    return (sum(pyramid) / np.sqrt(3)).astype(np.float32)


def _made(name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if not shape:
        return np.array(np.log(1 / 0.07), np.float32)
    if len(shape) == 1:
        values = 0.1 * values + name.endswith("weight")
    elif name.endswith(("relative_position_bias_table", "label_embed")):
        values *= 0.5
    else:
        values *= next((gain for part, gain in _GAINS.items() if part in name), 1)
        values /= np.sqrt(np.prod(shape[1:]))
    return values.astype(np.float32)


def _compare_full(module: Any, package: pathlib.Path) -> dict[str, list[int]]:
    """Names and shapes of their state at the published size."""
    from tools.label.experts.ram_plus_network import RamPlus

    data = package / "data"
    tags = read_tags(data / "ram_tag_list.txt", data / "ram_tag_list_threshold.txt")
    theirs = module.RAM_plus(image_size=384, vit="swin_l").eval()
    _compare("full size", theirs, RamPlus(tags).eval(), made_images(1))
    return {name: list(value.shape) for name, value in theirs.state_dict().items()}


def _compare_small(module: Any, package: pathlib.Path, scratch: pathlib.Path) -> dict[str, Any]:
    """Their `logits` [2, tags] and the tags above their thresholds, `above` [2, tags]."""
    from tools.label.experts.ram_plus_network import RamPlus, Shape

    for folder in ("configs/swin", "data"):
        (scratch / folder).mkdir(parents=True)
    _changed(package, scratch, "configs/swin/config_swinL_384.json", vision_width=128, **SMALL_SWIN)
    decoder = dict(hidden_size=64, intermediate_size=256, num_attention_heads=4)
    _changed(package, scratch, "configs/q2l_config.json", **decoder)
    tags, thresholds = scratch / "tags.txt", scratch / "data/ram_tag_list_threshold.txt"
    tags.write_text("\n".join(SMALL_TAGS.names))
    thresholds.write_text("\n".join(map(repr, SMALL_TAGS.thresholds.tolist())))
    with mock.patch.object(module, "CONFIG_PATH", scratch):
        lists = dict(tag_list=tags, tag_list_chinese=tags)
        theirs = module.RAM_plus(image_size=384, vit="swin_l", **lists).eval()
    images = made_images(2)
    ours = RamPlus(SMALL_TAGS, Shape(**SMALL_SWIN, **SMALL_DECODER)).eval()
    logits = _compare("small size", theirs, ours, images)
    found, _ = theirs.generate_tag(module.torch.from_numpy(images))
    above = [[name in line.split(" | ") for name in SMALL_TAGS.names] for line in found]
    return {"logits": logits, "above": np.array(above)}


def _compare(size: str, theirs: Any, ours: Any, images: np.ndarray) -> np.ndarray:
    """Prints how far our logits are from theirs, which it returns; both get the same weights."""
    import torch

    shapes = {name: tuple(value.shape) for name, value in ours.state_dict().items()}
    state = {name: torch.from_numpy(value) for name, value in made_weights(shapes).items()}
    ours.load_state_dict(state)
    left = theirs.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    heard: list[Any] = []
    hook = theirs.fc.register_forward_hook(lambda *call: heard.append(call[-1].squeeze(-1)))
    pixels = torch.from_numpy(images)
    with torch.no_grad():
        theirs.generate_tag(pixels)
        difference = (ours(pixels) - heard[0]).abs().max().item()
    hook.remove()
    logits = heard[0].numpy()
    print(f"{size}: max abs {difference:.1e} (std {logits.std():.2g}, {logits.shape} logits)")
    return logits


def _changed(package: pathlib.Path, scratch: pathlib.Path, path: str, **values: Any) -> None:
    config = json.loads((package / path).read_text(encoding="utf-8"))
    (scratch / path).write_text(json.dumps(config | values), encoding="utf-8")


@contextlib.contextmanager
def _their_module(code: pathlib.Path) -> Iterator[Any]:
    """Their `ram.models.ram_plus`, with what it imports and inference does not need made up."""
    path = "ram/models/ram_plus.py"
    if not (code / path).is_file():
        raise UserError(f"{code} has no {path}; give --code a checkout of github.com/{_REPOSITORY}")
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{path} needs PyTorch ({error}); `make test-torch` installs it") from error
    made_up: dict[str, Any] = {name: mock.MagicMock() for name in _UNUSED}
    made_up["timm.models.layers"] = mock.MagicMock(
        to_2tuple=lambda n: (n, n), DropPath=lambda rate: torch.nn.Identity()
    )
    made_up |= _transformers()
    for name in list(made_up):
        parents = name.split(".")
        for n in range(1, len(parents)):
            made_up.setdefault(".".join(parents[:n]), mock.MagicMock())
    paths = [str(code), *sys.path]
    with mock.patch.dict(sys.modules, made_up), mock.patch.object(sys, "path", paths):
        yield importlib.import_module("ram.models.ram_plus")


def _transformers() -> dict[str, Any]:
    """What of transformers their decoder calls when it tags."""
    import torch

    class Model(torch.nn.Module):
        dtype = torch.float32

        def __init__(self, config: Any) -> None:
            super().__init__()

        def init_weights(self) -> None:
            """Weights are loaded."""

        def resize_token_embeddings(self, count: int) -> None:
            """Embeddings are deleted."""

        def invert_attention_mask(self, valid: Any) -> Any:
            return (1.0 - valid[:, None, None, :].float()) * torch.finfo(torch.float32).min

        def get_head_mask(self, mask: None, layers: int) -> list[None]:
            return [None] * layers

    class Config(types.SimpleNamespace):
        chunk_size_feed_forward = 0
        output_attentions = output_hidden_states = False

        @classmethod
        def from_json_file(cls, path: str) -> "Config":
            return cls(**json.loads(pathlib.Path(path).read_text(encoding="utf-8")))

    def unchunked(forward: Any, chunk_size: int, dim: int, hidden: Any) -> Any:
        return forward(hidden)

    return {
        "transformers": mock.MagicMock(),
        "transformers.activations": mock.MagicMock(ACT2FN={"gelu": torch.nn.functional.gelu}),
        "transformers.modeling_utils": mock.MagicMock(
            PreTrainedModel=Model, apply_chunking_to_forward=unchunked
        ),
        "transformers.models.bert.configuration_bert": mock.MagicMock(BertConfig=Config),
    }


if __name__ == "__main__":
    sys.exit(main())
