# SPDX-License-Identifier: Apache-2.0
"""Runs of the real entry points on a tiny store, in processes of their own."""

import io
import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image

from input_pipeline.store import finish_store, write_shard
from mtv_jax.core.fields import CAPTION, IMAGE, Field
from tools.data.train_tokenizer import main as train_tokenizer

ROOT = pathlib.Path(__file__).parents[2]
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "grey": (128,) * 3}
SHAPES = ("disc", "square", "stripe")
SIZE_FIELDS = (Field(name="height", dtype="int32"), Field(name="width", dtype="int32"))


def tiny_store(path: pathlib.Path, rows: int = 96, shards: int = 2) -> None:
    """Coloured shapes with captions and classes."""
    generator = np.random.default_rng(0)

    def samples(shard: int):
        for row in range(rows // shards):
            colour = list(COLOURS)[generator.integers(len(COLOURS))]
            shape = generator.integers(len(SHAPES))
            image = _draw(generator, COLOURS[colour], SHAPES[shape])
            yield {
                "key": f"{shard}-{row}",
                "image": image,
                "caption": f"a {colour} {SHAPES[shape]} number {row}",
                "height": 40,
                "width": 48,
                "class_id": int(shape),
            }

    for shard in range(shards):
        write_shard(path, "images", shard, samples(shard))
    fields = (IMAGE, CAPTION, *SIZE_FIELDS, Field(name="class_id", dtype="int32"))
    finish_store(path, "tiny", fields, {"classes": list(SHAPES)})


def _draw(generator: np.random.Generator, colour: tuple[int, ...], shape: str) -> bytes:
    pixels = generator.integers(0, 60, (40, 48, 3)).astype(np.uint8)
    y, x = np.mgrid[:40, :48]
    cx, cy = generator.integers(14, 34), generator.integers(12, 28)
    inside = {
        "disc": (x - cx) ** 2 + (y - cy) ** 2 < 100,
        "square": (abs(x - cx) < 9) & (abs(y - cy) < 9),
        "stripe": abs(y - cy) < 4,
    }[shape]
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


def train_command(world: pathlib.Path, workdir: pathlib.Path, **overrides: object) -> list[str]:
    """The command line of a tiny quick-start run."""
    settings = {
        "batch_size": 16,
        "total_steps": 8,
        "model.image_size": 16,
        "model.vocab_size": 96,
        "model.text_length": 8,
        "input.text_length": 8,
        "views.global_crop.size": 16,
        "views.caption.length": 8,
        "views.caption.pooling_slot": 7,
        "optim.warmup_steps": 2,
        "checkpoint.every": 3,
        "log.every": 1,
        "evals.heldout.every": 0,
        "evals.heldout.batches": 1,
        "evals.retrieval.gallery": 8,
        **overrides,
    }
    config = ROOT / "configs" / "quickstart.py"
    command = [sys.executable, "-m", "mtv_jax.train", f"--config={config}:data={world}"]
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
