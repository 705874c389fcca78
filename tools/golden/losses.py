# SPDX-License-Identifier: Apache-2.0
"""What the scripts share that compare our losses with published PyTorch code.

Such a script runs theirs on random inputs and weights, prints how far ours are from it, and stores
inputs, weights and results, so that the comparison is tested without PyTorch.
"""

import argparse
import importlib.util
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtv_jax.core.errors import UserError
from mtv_jax.core.passes import Features
from mtv_jax.objectives.base import Context, Heads
from mtv_jax.views.batch import Batch, BatchSpec

Arrays = Mapping[str, np.ndarray]


def compare_and_store(
    argv: Sequence[str] | None,
    name: str,
    docstring: str | None,
    run_theirs: Callable[[pathlib.Path], Arrays],
    run_ours: Callable[[Arrays], Arrays],
) -> None:
    """The command line of one script.

    Args:
        argv: its arguments.
        name: of the module.
        docstring: of the module.
        run_theirs: maps a checkout of their repository to inputs, weights and results.
        run_ours: maps these to results of the same names.

    Raises:
        UserError: no such code in the folder, or no PyTorch.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m tools.golden.{name}",
        description=docstring,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--code", required=True, metavar="DIR", help="checkout of their repository")
    parser.add_argument("--commit", required=True, metavar="SHA", help="its commit, for the record")
    parser.add_argument("--output", metavar="NPZ", help="where inputs and results are stored")
    args = parser.parse_args(argv)
    arrays = run_theirs(pathlib.Path(args.code))
    for path, values in run_ours(arrays).items():
        difference = np.abs(values - arrays[path]).max()
        print(f"{path}: max abs {difference:.1e} (rms {rms(arrays[path]):.2g})")
    if args.output:
        flags = f"--code DIR --commit {args.commit} --output {args.output}"
        about = {"commit": args.commit, "command": f"{parser.prog} {flags}"}
        np.savez_compressed(args.output, **arrays, **about)  # type: ignore


def rms(values: np.ndarray) -> float:
    """Root mean square: the scale that a difference is to be seen against."""
    return float(np.sqrt(np.mean(np.square(values))))


def load_module(code: pathlib.Path, path: str, repository: str) -> Any:
    """One file of a checkout as a module, without the package around it.

    Args:
        code: the checkout.
        path: of the file in it.
        repository: owner and name on GitHub, for the message.

    Raises:
        UserError: no such file, or no PyTorch.
    """
    if not (code / path).is_file():
        raise UserError(f"{code} has no {path}; give --code a checkout of github.com/{repository}")
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, code / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise UserError(f"{path} needs PyTorch ({error}); `make test-torch` installs it") from error
    return module


def context(
    feats: Mapping[str, Features],
    *,
    samples: int,
    heads: Mapping[str, Heads] | None = None,
    inputs: Mapping[str, jax.Array] | None = None,
    slots: Any = None,
    progress: Any = 0.0,
) -> Context:
    """What an objective reads, on a batch of valid and distinct samples without pixels.

    Args:
        feats: pass id → features.
        samples: in the batch.
        heads: those of "student" and "ema".
        inputs: what the objective would derive.
        slots: its state.
        progress: of the run, in [0, 1].
    """
    index, valid = jnp.arange(samples), jnp.ones(samples, bool)
    batch = Batch(
        columns={},
        valid={"image": valid, "caption": valid},
        position=jnp.stack([index, index], axis=-1).astype(jnp.uint32),
        record_id=jnp.stack([index, index, index], axis=-1),
        keys=jax.random.split(jax.random.key(0), samples),
        inputs=dict(inputs or {}),
        spec=BatchSpec(views=(), fields=(), patch_size=1),
    )
    heads = {"student": {}, "ema": {}, **(heads or {})}
    progress = jnp.asarray(progress, jnp.float32)
    return Context(
        **heads, feats=feats, batch=batch, slots=slots, step=jnp.asarray(0), progress=progress
    )
