# SPDX-License-Identifier: Apache-2.0
"""What labelling costs by arithmetic: operations of the experts' networks, and what they allow.

Operations are those of matrix products and convolutions, two a multiply-add, counted by PyTorch
while the network runs on shapes alone. Norms, activations and resizing are not among them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from configs.budget import CHIPS
from tools.bench import published
from tools.label.experts import hub
from tools.label.experts.depth_anything_v2 import mirror_size

# What Depth Anything's processor makes of 1:1, of 640x480, and of a 4:3 below 450 pixels.
_SQUARE, _PHOTO, _SMALL = (518, 518), (518, 686), (392, 518)
_DEPTH, _OWLV2, _RAM, _SIGLIP = "Depth Anything V2", "OWLv2-B/16", "RAM++", "SigLIP B/16, images"
_MIRROR, _TEXTS, _WHOLE = "mirror image ", "32 texts", "960x960 and 32 texts"
_MIRROR_SIDE = 196  # of the mirror image, by default
_PEAK = CHIPS["h200"].tflops * 1e12  # operations a second; that of an H100 is the same


@dataclasses.dataclass(frozen=True, kw_only=True)
class Count:
    """One network on one image.

    Attributes:
        network: its name.
        input: what it is given, in words.
        parameters: of the whole network.
        flops: operations.
    """

    network: str
    input: str
    parameters: int
    flops: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What becomes of one image.

    Attributes:
        name: in words.
        flops: operations of all networks that see it.
        paper: images an hour on a GPU, as published (MTV, A.1); 0 for none.
        goal: ours; 0 for none.
    """

    name: str
    flops: int
    paper: int = 0
    goal: int = 0

    def hourly(self, utilisation: float) -> float:
        """Images an hour at a share of the peak."""
        return 3600 * utilisation * _PEAK / self.flops

    def utilisation(self, hourly: float) -> float:
        """The share of the peak that a rate means."""
        return hourly * self.flops / 3600 / _PEAK


def count() -> list[Count]:
    """Every network in its published size, on one image."""
    return [*_depth(), *_owlv2(), *_taggers()]


def works(counts: Sequence[Count]) -> list[Work]:
    """What the experts of `configs/label.py` do with an image, and near variants."""
    known = {(entry.network, entry.input): entry.flops for entry in counts}

    def depth(size: str, shape: tuple[int, int]) -> int:
        alone = known[f"{_DEPTH} {size}", _named("", shape)]
        return alone + known[f"{_DEPTH} {size}", _named(_MIRROR, mirror_size(shape, _MIRROR_SIDE))]

    whole, text = (known[_OWLV2, part] for part in (_WHOLE, _TEXTS))
    tags, ours = known[_RAM, "384x384"], known[_SIGLIP, "224x224"]
    rates = dict(paper=120_000, goal=600_000)
    regions = dict(paper=18_000, goal=250_000)
    return [
        Work(name="depth, large, 1:1", flops=depth("large", _SQUARE), **rates),
        Work(name="depth, large, 4:3", flops=depth("large", _PHOTO), **rates),
        Work(
            name="depth, large, 4:3, no mirror image",
            flops=known[f"{_DEPTH} large", _named("", _PHOTO)],
            **rates,
        ),
        Work(name="depth, large, 4:3, short side below 450", flops=depth("large", _SMALL), **rates),
        Work(name="depth, base, 4:3", flops=depth("base", _PHOTO)),
        Work(name="depth, small, 4:3", flops=depth("small", _PHOTO)),
        Work(name="regions: RAM++, then OWLv2", flops=tags + whole, **regions),
        Work(name="the same, texts embedded once", flops=tags + whole - text, **regions),
        Work(name="regions: OWLv2 alone", flops=whole, **regions),
        Work(name="regions: SigLIP B/16, then OWLv2", flops=ours + whole, **regions),
    ]


def _depth() -> list[Count]:
    counts = []
    for name, size in published.DEPTH_SIZES.items():
        network = _on_meta(functools.partial(published.depth_anything, size))
        forwards = {}
        for shape in (_SQUARE, _PHOTO, _SMALL):
            for what, sides in (("", shape), (_MIRROR, mirror_size(shape, _MIRROR_SIDE))):
                forwards[_named(what, sides)] = functools.partial(network, _pixels(*sides))
        counts += _counted(f"{_DEPTH} {name}", network, forwards)
    return counts


def _owlv2() -> list[Count]:
    torch, network = hub.packages().torch, _on_meta(published.owlv2)
    pixels = _pixels(960, 960)
    ids = torch.empty(published.QUERIES, published.TOKENS, dtype=torch.long, device="meta")
    forwards = {
        "960x960, no head": lambda: network.owlv2.vision_model(pixels),
        _TEXTS: lambda: network.owlv2.get_text_features(ids, ids),
        _WHOLE: lambda: network(pixel_values=pixels, input_ids=ids, attention_mask=ids),
    }
    return _counted(_OWLV2, network, forwards)


def _taggers() -> list[Count]:
    counts = []
    for name, make, side in ((_RAM, published.ram_plus, 384), (_SIGLIP, published.siglip, 224)):
        network = _on_meta(make)
        forward = functools.partial(network, _pixels(side, side))
        counts += _counted(name, network, {_named("", (side, side)): forward})
    return counts


def _counted(name: str, network: Any, forwards: Mapping[str, Callable[[], Any]]) -> list[Count]:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return [
        Count(network=name, input=given, parameters=parameters, flops=flops(forward))
        for given, forward in forwards.items()
    ]


def flops(forward: Callable[[], Any]) -> int:
    """Operations of the matrix products and convolutions of a call."""
    torch = hub.packages().torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops()


def _on_meta(make: Callable[[], Any]) -> Any:
    with hub.packages().torch.device("meta"):
        network = make()
    return network.to("meta")  # with the buffers that insist on another device


def _pixels(height: int, width: int) -> Any:
    return hub.packages().torch.empty(1, 3, height, width, device="meta")


def _named(what: str, sides: tuple[int, int]) -> str:
    return f"{what}{sides[0]}x{sides[1]}"
