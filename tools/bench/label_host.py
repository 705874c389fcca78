# SPDX-License-Identifier: Apache-2.0
"""What labelling costs the host: each expert's steps, and bytes on disk."""

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import decode, store
from tools.bench import label_inputs, published
from tools.bench.published import DepthSize
from tools.data import inspect
from tools.label.base import Expert, Outcome, Sample
from tools.label.experts import hub, ram_plus_files
from tools.label.experts.depth_anything_v2 import DepthAnythingV2
from tools.label.experts.owlv2 import Owlv2
from tools.label.experts.ram_plus import RamPlus

PREPARE, TOKENISE, STACK, FINISH = "prepare", "tokenise a batch", "stack a batch", "finish"
ON_THREADS, ON_THE_DEVICES = ("read", "decode", PREPARE, FINISH), (TOKENISE, STACK)
SEEN = "every expert that sees"
_LEAST_CALLS = 5
_BATCH = 8  # of the device


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One step of labelling an image.

    Attributes:
        expert: whose; `SEEN` for what all do.
        name: of the step. While a batch is tokenised and stacked the device waits.
        seconds: of processor time.
    """

    expert: str
    name: str
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps:
    """What an expert does on the host.

    Attributes:
        expert: its settings.
        prepare: the made image.
        stack: images of a batch, on the device's thread.
        finish: a made result of the network, by number.
        others: further calls by the name of the step.
    """

    expert: Expert
    prepare: Callable[[], Any]
    stack: Callable[[], Any]
    finish: Callable[[int], Outcome]
    others: Mapping[str, Callable[[], Any]] = dataclasses.field(default_factory=dict)

    def timed(self) -> dict[str, Callable[[], Any]]:
        """The calls that are timed, by name."""
        calls = {PREPARE: self.prepare, STACK: self.stack, FINISH: lambda: self.finish(0)}
        return {**calls, **self.others}


@dataclasses.dataclass
class _Map:
    """What Depth Anything says of an image."""

    disparity: np.ndarray
    agreement: float = 0.9


def experts(folder: pathlib.Path, sample: Sample, size: DepthSize) -> list[Steps]:
    """The experts of `configs/label.py` that have a network.

    Args:
        folder: for weights.
        sample: that is prepared.
        size: of Depth Anything.
    """
    return [_depth(folder, sample, size), _regions(folder, sample), _tags(sample)]


def _depth(folder: pathlib.Path, sample: Sample, size: DepthSize) -> Steps:
    weights = published.save_depth_anything(folder / "depth", size)
    expert = DepthAnythingV2(name="Depth Anything V2", weights=weights)
    labeller = expert.load("cpu")
    prepared = labeller.prepare(sample)
    batch = [prepared.pixels.copy() for _ in range(_BATCH)]
    return Steps(
        expert=expert,
        prepare=lambda: labeller.prepare(sample),
        stack=lambda: _stacked(batch),
        finish=lambda number: labeller.finish(prepared, _Map(label_inputs.made_map(number))),
        others={"infer, on one core": lambda: labeller.infer([prepared])},
    )


def _regions(folder: pathlib.Path, sample: Sample) -> Steps:
    weights = published.save_owlv2(folder / "boxes")
    expert = Owlv2(name="OWLv2", weights=weights, max_tags=published.QUERIES)
    labeller = expert.load("cpu")
    prepared = labeller.prepare(sample)
    batch = [prepared.pixels.copy() for _ in range(_BATCH)]
    transformers = hub.packages().transformers
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights)
    texts = [f"a photo of a {tag}" for tag in prepared.tags] * _BATCH

    def tokenise() -> Any:
        return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")

    return Steps(
        expert=expert,
        prepare=lambda: labeller.prepare(sample),
        stack=lambda: _stacked(batch),
        finish=lambda number: labeller.finish(prepared, label_inputs.made_boxes(number)),
        others={TOKENISE: tokenise},
    )


def _tags(sample: Sample) -> Steps:
    expert = RamPlus(name="RAM++")
    prepared = ram_plus_files.preprocess(sample.image)
    batch = [prepared.copy() for _ in range(_BATCH)]
    scores = np.linspace(0.9, 0.7, 20)
    return Steps(
        expert=expert,
        prepare=lambda: ram_plus_files.preprocess(sample.image),
        stack=lambda: _stacked(batch),
        finish=lambda number: Outcome(labels=expert.best(label_inputs.TAGS[:20], scores)),
    )


def _stacked(images: Sequence[np.ndarray]) -> Any:
    """As a GPU is given it: numbers are cast before they travel."""
    torch = hub.packages().torch
    return torch.from_numpy(np.stack(images)).to(torch.bfloat16)


def time_steps(opened: store.Store, found: Sequence[Steps], seconds: float) -> Iterator[Step]:
    """Times what the host does for an image of 640x480 pixels, on one thread.

    Args:
        opened: a made store.
        found: from `experts`.
        seconds: for each step.
    """
    hub.packages().torch.set_num_threads(1)  # others would wait in loops, and that is counted
    encoded = opened.read(0, 0, ("image",))["image"][0]
    calls: dict[tuple[str, str], Callable[[], Any]] = {
        (SEEN, "read"): lambda: opened.read(0, 0, ("image",)),
        (SEEN, "decode"): lambda: decode.decode_image(encoded),
    }
    for steps in found:
        calls |= {(steps.expert.name, name): call for name, call in steps.timed().items()}
    for (expert, name), call in calls.items():
        images = _BATCH if name in ON_THE_DEVICES else 1
        yield Step(expert=expert, name=name, seconds=processor_seconds(call, seconds) / images)


def processor_seconds(call: Callable[[], Any], seconds: float) -> float:
    """Median processor time of a call: who else is busy on the machine counts less."""
    call()
    spent, end = [], time.perf_counter() + seconds
    while len(spent) < _LEAST_CALLS or time.perf_counter() < end:
        started = time.process_time()
        call()
        spent.append(time.process_time() - started)
    return statistics.median(spent)


def spent(measured: Sequence[Step], expert: str, names: Collection[str]) -> float:
    """Seconds of processor time that an expert's steps of these names take for an image."""
    seen = [step for step in measured if step.expert in (SEEN, expert)]
    return sum(step.seconds for step in seen if step.name in names)


def bytes_on_disk(path: pathlib.Path, found: Sequence[Steps]) -> Mapping[str, float]:
    """Writes every expert's made labels beside a made store; bytes of a row by holder."""
    opened = store.Store.open(path)
    for steps in found:
        expert = steps.expert
        rows = []
        for row in range(opened.num_rows):
            key = opened.read(0, row, ())[store.KEY][0]
            rows.append({store.KEY: key, **steps.finish(row).labels})
        store.write_shard(path, expert.sidecar, 0, rows)
        store.finish_sidecar(path, expert.sidecar, expert.emits(), {})
    return inspect.bytes_per_row(store.Store.open(path, opened.sidecars))
