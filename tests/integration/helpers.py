# SPDX-License-Identifier: Apache-2.0
"""Runs of the real entry points on a tiny store, in processes of their own."""

import dataclasses
import io
import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image

from input_pipeline.decode import encode_png16
from input_pipeline.example import Value
from input_pipeline.store import finish_sidecar, finish_store, write_shard
from mtv_jax.core.fields import BOXES, CAPTION, DEPTH, IMAGE, PHRASES, SCORES, Field
from tools.data.train_tokenizer import main as train_tokenizer

ROOT = pathlib.Path(__file__).parents[2]
WHOLE = "vl+ssl+ground+depth"
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "grey": (128,) * 3}
SHAPES = ("disc", "square", "stripe")
SIZE_FIELDS = (Field(name="height", dtype="int32"), Field(name="width", dtype="int32"))


def tiny_store(path: pathlib.Path, rows: int = 96, shards: int = 2) -> None:
    """Coloured shapes with captions, classes, and depth: they float before a slanted wall.

    One region lies tight around each shape, but every seventh image has none.
    """
    generator = np.random.default_rng(0)
    for shard in range(shards):
        base, labels, truth, regions = [], [], [], []
        for row in range(rows // shards):
            colour = list(COLOURS)[generator.integers(len(COLOURS))]
            shape = int(generator.integers(len(SHAPES)))
            inside = _outline(generator, SHAPES[shape])
            key = {"key": f"{shard}-{row}"}
            image = _paint(generator, COLOURS[colour], inside)
            caption = f"a {colour} {SHAPES[shape]} number {row}"
            size = {"height": 40, "width": 48, "class_id": shape}
            base.append({**key, "image": image, "caption": caption, **size})
            millimetres = np.where(inside, 1000, np.linspace(4000, 2000, 40)[:, None])
            disparity = encode_png16(np.uint16(65535 * 1000 / millimetres))
            labels.append({**key, "depth": disparity})
            truth.append({**key, "metric_depth": encode_png16(np.uint16(millimetres))})
            phrase = SHAPES[shape] if row % 2 else f"{colour} {SHAPES[shape]}"
            regions.append({**key, **(_region(inside, phrase) if row % 7 < 6 else {})})
        write_shard(path, "images", shard, base)
        write_shard(path, "depth_v1", shard, labels)
        write_shard(path, "scene_v1", shard, truth)
        write_shard(path, "regions_v1", shard, regions)
    fields = (IMAGE, CAPTION, *SIZE_FIELDS, Field(name="class_id", dtype="int32"))
    finish_store(path, "tiny", fields, {"classes": list(SHAPES)})
    finish_sidecar(path, "depth_v1", (DEPTH,), {})
    finish_sidecar(path, "scene_v1", (dataclasses.replace(DEPTH, name="metric_depth"),), {})
    finish_sidecar(path, "regions_v1", (BOXES, PHRASES, SCORES), {})


def _region(inside: np.ndarray, phrase: str) -> dict[str, Value]:
    y, x = np.nonzero(inside)
    box = np.float32([x.min(), y.min(), x.max() + 1, y.max() + 1]) / np.float32([48, 40, 48, 40])
    return {"boxes": box, "phrases": [phrase], "scores": [1.0]}


def _outline(generator: np.random.Generator, shape: str) -> np.ndarray:
    y, x = np.mgrid[:40, :48]
    cx, cy = generator.integers(14, 34), generator.integers(12, 28)
    return {
        "disc": (x - cx) ** 2 + (y - cy) ** 2 < 100,
        "square": (abs(x - cx) < 9) & (abs(y - cy) < 9),
        "stripe": abs(y - cy) < 4,
    }[shape]


def _paint(generator: np.random.Generator, colour: tuple[int, ...], inside: np.ndarray) -> bytes:
    pixels = generator.integers(0, 60, (40, 48, 3)).astype(np.uint8)
    pixels[inside] = colour
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def tiny_world(root: pathlib.Path) -> pathlib.Path:
    """Stores `train` and `test` and a tokenizer, as the quick start's config reads them."""
    tiny_store(root / "train")
    tiny_store(root / "test", rows=32)
    arguments = ["--store", str(root / "train"), "--output", str(root / "tokenizer.model")]
    assert train_tokenizer([*arguments, "--vocab_size", "96"]) == 0
    return root


def train_command(
    world: pathlib.Path, workdir: pathlib.Path, *, tasks: str = "vl", **overrides: object
) -> list[str]:
    """The command line of a tiny quick-start run."""
    settings = {
        "batch_size": 16,
        "total_steps": 8,
        "model.image_size": 16,
        "model.vocab_size": 96,
        "model.text_length": 8,
        "input.text_length": 8,
        "views.global_crop.size": 16,
        "views.local_crops.size": 8,
        "views.local_crops.count": 2,
        "views.region_phrases.length": 8,
        "views.caption.length": 8,
        "views.caption.pooling_slot": 7,
        "optim.warmup_steps": 2,
        "checkpoint.every": 3,
        "log.every": 1,
        "evals.heldout.every": 0,
        "evals.heldout.batches": 1,
        **({"evals.retrieval.gallery": 8} if "vl" in tasks else {}),
        **overrides,
    }
    config = ROOT / "configs" / "quickstart.py"
    command = [
        sys.executable,
        "-m",
        "mtv_jax.train",
        f"--config={config}:data={world},tasks={tasks}",
    ]
    return [
        *command,
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in settings.items()),
    ]


def environment(devices: int = 1) -> dict[str, str]:
    """Environment of a child process with `devices` fake devices and a warm compile cache."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"
        " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def run(command: list[str], *, devices: int = 1, expect: int = 0) -> str:
    """Output of a command, which must end with status `expect`."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(devices),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == expect, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr
