# SPDX-License-Identifier: Apache-2.0
"""A published recipe on the hardware that is there: `chips=1,hours=24,chip=rtx4090`.

What a budget of hours does not reach is derived, not guessed, and every change is a line of
`c.notes`. A smaller batch keeps the number of updates up; Adam's learning rate follows its square
root (arXiv 2205.10287), the teacher's momentum its ratio (arXiv 2307.13813). Micro-batches fit the
batch into memory and leave the loss as it is.
"""

import dataclasses
import math
from typing import Any

from ml_collections import ConfigDict

OPTIONS = dict(chips=0, hours=0.0, chip="", rate=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """Memory in GiB, and the peak in dense bfloat16 TFLOP/s."""

    gib: int
    tflops: int


CHIPS = {
    "l4": Chip(gib=24, tflops=121),
    "rtx3090": Chip(gib=24, tflops=71),
    "rtx4090": Chip(gib=24, tflops=165),
    "a100-40": Chip(gib=40, tflops=312),
    "a100-80": Chip(gib=80, tflops=312),
    "h100": Chip(gib=80, tflops=989),
    "h200": Chip(gib=141, tflops=989),
    "v4": Chip(gib=32, tflops=275),
    "v5e": Chip(gib=16, tflops=197),
    "v5p": Chip(gib=95, tflops=459),
    "v6e": Chip(gib=32, tflops=918),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What a task adds.

    Attributes:
        gflops: per image, forward and backward, as bfloat16: TF32 runs at half the rate.
        activations: bytes that an image leaves for the backward pass, under remat=dots.
        pixels: bytes of a canvas pixel in the batch.
        parameters: their number.
    """

    gflops: float
    activations: float
    pixels: int
    parameters: int


# Activations of B/16 are what the compiler plans for a TPU v5e (docs/performance.md); those of L/16
# follow width x layers x tokens, its depth head's channels x pixels.
COSTS = {
    "B": {
        "vl": Cost(gflops=139.3, activations=67e6, pixels=3, parameters=203_155_970),
        "ssl": Cost(gflops=265.8, activations=169e6, pixels=0, parameters=29_435_136),
        "ground": Cost(gflops=10.7, activations=11e6, pixels=0, parameters=7_090_178),
        "depth": Cost(gflops=69.0, activations=73e6, pixels=2, parameters=10_595_137),
    },
    "L": {
        "vl": Cost(gflops=604.9, activations=233e6, pixels=3, parameters=652_150_786),
        "ssl": Cost(gflops=1060.9, activations=516e6, pixels=0, parameters=30_483_968),
        "ground": Cost(gflops=16.0, activations=38e6, pixels=0, parameters=12_599_298),
        "depth": Cost(gflops=332.4, activations=190e6, pixels=2, parameters=29_766_849),
    },
}

_UTILISATION = 0.3  # of the peak, until `rate=` says what was measured
# Of a chip's memory; JAX takes three quarters of a GPU unless it is told otherwise.
_GPU_MEMORY, _TPU_MEMORY = 0.7, 0.8
_FEWEST_UPDATES = 20_000  # a batch is halved to reach them
_SMALLEST_BATCH = 512
_USEFUL_MICRO_BATCH = 16  # smaller ones leave a chip idle
_LEAST_STEPS = 1000
_BATCHES_HELD = 4  # the loop keeps three on a chip; one more is cut into micro-batches


def fit(c: ConfigDict, options: ConfigDict) -> None:
    """Changes a published recipe to what a budget allows, and says so in `c.notes`.

    Args:
        c: the recipe.
        options: `OPTIONS` and `tasks`. `chips=0` is no budget; `rate` is images/s of one chip, as
            tools.bench.step measures it.

    Raises:
        ValueError: a budget that is incomplete, too small, or of chips that are too small.
    """
    if not _asked(options):
        return
    cost = _total([COSTS[c.model.image_tower][task] for task in _counted(options.tasks)])
    images, told = _images(c, options, cost)
    halved = _halved(c.batch_size, images)
    while halved >= 2 * _SMALLEST_BATCH and not _fits(c, options, cost, halved):
        halved //= 2
    if images < _LEAST_STEPS * halved:
        raise ValueError(
            f"{told}: {images // halved} steps of {halved}, fewer than {_LEAST_STEPS}; give more "
            "hours or chips"
        )
    parts = _micro_batches(c, options, cost, -(-halved // options.chips))
    batch = max(halved // (options.chips * parts), 1) * options.chips * parts
    notes = [told, *_shorten(c, images=images, batch=batch, halved=halved)]
    if parts > c.micro_batches:
        reason = f"{batch // options.chips // parts} images at a time fit on one {options.chip}"
        notes.append(_set(c, "micro_batches", parts, f"{reason}; the loss does not change"))
    c.notes = tuple(notes)


def _asked(options: ConfigDict) -> bool:
    """Whether there is a budget; half of one is an error."""
    given = [name for name in OPTIONS if options[name]]
    if not given:
        return False
    if any(options[name] < 0 for name in ("chips", "hours", "rate")):
        raise ValueError("chips, hours and rate cannot be negative")
    if missing := [name for name in ("chips", "hours", "chip") if not options[name]]:
        raise ValueError(f"a budget needs {missing[0]}=, as in chips=1,hours=24,chip=rtx4090")
    if options.chip not in CHIPS:
        raise ValueError(f"chip={options.chip!r} is not one of {sorted(CHIPS)}")
    return True


def _counted(tasks: str) -> set[str]:
    """The towers are counted with vl, whichever tasks use them."""
    return {"vl", *tasks.split("+")}


def _total(costs: list[Cost]) -> Cost:
    names = [field.name for field in dataclasses.fields(Cost)]
    return Cost(**{name: sum(getattr(cost, name) for cost in costs) for name in names})


def _images(c: ConfigDict, options: ConfigDict, cost: Cost) -> tuple[int, str]:
    """How many images the run sees, and how that was found."""
    peak = CHIPS[options.chip].tflops
    rate = options.rate or _UTILISATION * peak * 1e3 / cost.gflops
    source = (
        "as measured"
        if options.rate
        else f"assumed: {_percent(_UTILISATION)} of {peak} TFLOP/s at {cost.gflops:.1f} GFLOP each"
    )
    budget = int(options.chips * options.hours * 3600 * rate)
    published = c.batch_size * c.total_steps
    relation = "reaches" if budget >= published else "of"
    told = (
        f"budget {options.chips} x {options.chip}, {options.hours:g} h at {rate:,.0f} images/s and "
        f"chip ({source}): {budget:,} images {relation} the published {published:,}"
    )
    return min(budget, published), told


def _halved(batch: int, images: int) -> int:
    while images < _FEWEST_UPDATES * batch and batch >= 2 * _SMALLEST_BATCH:
        batch //= 2
    return batch


def _fits(c: ConfigDict, options: ConfigDict, cost: Cost, batch: int) -> bool:
    """Whether micro-batches of a useful size fit into memory."""
    images = -(-batch // options.chips)
    room = _room(c, options, cost, images)
    return room >= min(images, _USEFUL_MICRO_BATCH) * cost.activations


def _room(c: ConfigDict, options: ConfigDict, cost: Cost, images: int) -> float:
    """Bytes of a chip that state and batch leave to activations."""
    teacher = 4 if any(member for _, member in c.ema.rules) else 0
    state = (16 + teacher) * cost.parameters  # parameters, two moments, gradients in float32
    canvas = c.input.canvas or 2 * c.model.image_size
    batches = _BATCHES_HELD * images * cost.pixels * canvas**2
    share = _TPU_MEMORY if options.chip.startswith("v") else _GPU_MEMORY
    return share * CHIPS[options.chip].gib * 2**30 - state - batches


def _micro_batches(c: ConfigDict, options: ConfigDict, cost: Cost, images: int) -> int:
    """The smallest power of two whose micro-batches fit beside the state, `images` on a chip."""
    room = _room(c, options, cost, images)
    parts = 1
    while -(-images // parts) * cost.activations > room:
        if parts >= images:
            raise ValueError(
                f"{images} images on one {options.chip} do not fit, however small the micro-batch: "
                f"state and batch leave {room / 2**30:.1f} GiB of {CHIPS[options.chip].gib}; give "
                "more or larger chips"
            )
        parts *= 2
    return parts


def _shorten(c: ConfigDict, *, images: int, batch: int, halved: int) -> list[str]:
    """Batch, steps, learning rate, warm-up and teacher of a run that sees `images`."""
    old, old_steps = c.batch_size, c.total_steps
    steps, share, warm_up = images // batch, batch / old, c.optim.warmup_steps
    reasons = []
    if _halved(old, images) != old:
        reasons.append(
            f"{images // old:,} steps of {old} would be too few updates (at least "
            f"{_FEWEST_UPDATES:,} wanted)"
        )
    if halved != _halved(old, images):
        reasons.append(f"more images do not fit, {_USEFUL_MICRO_BATCH} or more at a time")
    if batch != halved:
        reasons.append("a multiple of chips x micro-batches")
    new = {
        "batch_size": (batch, "; ".join(reasons)),
        "total_steps": (steps, f"{images:,} images in batches of {batch}"),
        "optim.lr": (
            _digits(c.optim.lr * math.sqrt(share)),
            f"times the root of {batch} / {old}, as for Adam (arXiv 2205.10287); betas stay",
        ),
        "optim.warmup_steps": (
            round(warm_up * steps / old_steps),
            f"{_percent(warm_up / old_steps)} of the run, as published",
        ),
        "ema.momentum": (
            _digits(c.ema.momentum**share),
            f"to the power of {batch} / {old} (arXiv 2307.13813)",
        ),
    }
    notes = [_set(c, path, value, reason) for path, (value, reason) in new.items()]
    return [note for note in notes if note]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _digits(value: float) -> float:
    """Six digits: the same config on every machine."""
    return float(f"{value:.6g}")


def _set(c: ConfigDict, path: str, value: Any, reason: str) -> str:
    """Sets a field; the note, or "" when nothing changed."""
    *parents, name = path.split(".")
    section = c
    for parent in parents:
        section = section[parent]
    old = section[name]
    section[name] = value
    return "" if old == value else f"{path} {old} -> {value}: {reason}"
