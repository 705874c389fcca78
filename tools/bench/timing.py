# SPDX-License-Identifier: Apache-2.0
"""What the benches measure: the step on the devices, the stages and batches of the host."""

import contextlib
import dataclasses
import statistics
import time
from typing import Any

import jax
import numpy as np

from input_pipeline import decode
from input_pipeline.fake import fake_batch
from input_pipeline.loader import StoreConfig, open_streams
from input_pipeline.order import EpochOrder
from mtv_jax.assemble import System
from mtv_jax.core.config import build
from mtv_jax.dist.mesh import local_rows
from mtv_jax.training.interference import make_interference

_WARM_UP = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTiming:
    """What was measured.

    Attributes:
        compile_s: the first step, compilation included.
        seconds: every timed step.
        batch_size: images per step.
    """

    compile_s: float
    seconds: tuple[float, ...]
    batch_size: int

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def images_per_s(self) -> float:
        return self.batch_size / self.median_s


def local_batch(system: System) -> dict[str, Any]:
    """This process's rows of a fake batch."""
    return fake_batch(
        system.fields,
        batch_size=len(local_rows(system.mesh, system.run.batch_size)),
        canvas=system.canvas,
        text_length=system.input.text_length,
    )


def fake_frozen(system: System) -> Any:
    """Tables of zeros, shaped as the system's."""
    return jax.tree.map(
        lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), system.frozen
    )


def time_step(system: System, *, steps: int, profile: str = "") -> StepTiming:
    """Runs the training step on one fake batch, each step waited for."""
    state, batch = system.init_state(), system.put(local_batch(system))
    frozen = fake_frozen(system)

    def timed() -> float:
        nonlocal state
        started = time.perf_counter()
        state, metrics = system.train_step(state, frozen, batch)
        jax.block_until_ready((state, metrics))
        return time.perf_counter() - started

    trace: Any = jax.profiler.trace(profile) if profile else contextlib.nullcontext()
    with jax.set_mesh(system.mesh):
        compile_s = timed()
        for _ in range(_WARM_UP):
            timed()
        with trace:
            seconds = tuple(timed() for _ in range(steps))
    return StepTiming(compile_s=compile_s, seconds=seconds, batch_size=system.run.batch_size)


def time_interference(system: System, *, calls: int) -> StepTiming:
    """Measures how objectives interfere on one fake batch, each call waited for."""
    measure = jax.jit(make_interference(system.model, micro_batches=system.run.micro_batches))
    inputs = (system.init_state(), fake_frozen(system), system.put(local_batch(system)))

    def timed() -> float:
        started = time.perf_counter()
        jax.block_until_ready(measure(*inputs))
        return time.perf_counter() - started

    with jax.set_mesh(system.mesh):
        compile_s = timed()
        seconds = tuple(timed() for _ in range(calls))
    return StepTiming(compile_s=compile_s, seconds=seconds, batch_size=system.run.batch_size)


def time_stages(system: System, seconds: float) -> dict[str, float]:
    """Seconds per sample of each stage, in one thread, over the first store in training order."""
    name, spec = next(iter(system.input.stores.items()))
    config = build(StoreConfig, spec, f"input.stores.{name}")
    (stream,) = open_streams({name: config}, system.fields)
    order = EpochOrder(
        rows=len(stream.rows), seed=system.run.seed, block=stream.block, window=stream.window
    )
    columns = [name for name in ("image", "caption") if name in stream.store.fields]
    stages = {"read": 0.0, "decode": 0.0, "tokenise": 0.0}
    samples, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        at = stream.store.locate(int(stream.rows[order.row(samples)]))
        times = [time.perf_counter()]
        record = stream.store.read(at.shard, at.row, columns)
        times.append(time.perf_counter())
        image = decode.decode_image(record["image"][0], min_side=system.canvas)
        decode.to_canvas(image, system.canvas)
        times.append(time.perf_counter())
        if system.tokenizer:
            for caption in record.get("caption", ()):
                system.tokenizer.encode(caption.decode())
        times.append(time.perf_counter())
        for stage, begun, ended in zip(stages, times, times[1:], strict=False):
            stages[stage] += ended - begun
        samples += 1
    return {stage: total / samples for stage, total in stages.items()}


def time_batches(system: System, seconds: float) -> float:
    """Images/s of this process's batches, once the workers are up and their buffers drained."""
    batches = system.batches(0)
    for _ in range(1 + system.input.workers * system.input.prefetch):
        next(batches)
    images, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        images += len(next(batches)["position"])
    return images / elapsed
