# SPDX-License-Identifier: Apache-2.0
"""Exports a run as a folder that transformers and `mtv_jax.interop.load` open.

    python -m mtv_jax.export --workdir runs/quickstart --output runs/quickstart/export

Needs no accelerator and no PyTorch, whatever topology saved the checkpoint.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from mtv_jax import cli
from mtv_jax.core.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write; WORKDIR/export/STEP by default.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint of the run; the newest by default.")


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    del argv
    if not _WORKDIR.value:
        raise UserError("--workdir is missing; it is the run to export")
    workdir = pathlib.Path(_WORKDIR.value)
    config = cli.run_config(_WORKDIR.value)
    from mtv_jax.core.config import build, fingerprint, semantic
    from mtv_jax.interop.save import Export, save_hf
    from mtv_jax.models.encoder import Encoder
    from mtv_jax.training.checkpoint import load_numpy, steps_in

    _refuse_other_tokenizer(workdir, config["input"]["tokenizer"])
    steps = steps_in(workdir)
    if not steps and _STEP.value is None:
        raise UserError(f"{workdir} has no checkpoint yet; train it first")
    step = steps[-1] if _STEP.value is None else _STEP.value
    params = load_numpy(workdir, step, ("params",))["params"]
    scalars = _logit_scalars(params["heads"])
    output = pathlib.Path(_OUTPUT.value or workdir / "export" / str(step))
    save_hf(
        output,
        Export(
            encoder=build(Encoder, config["model"], "model"),
            params=params["backbone"],
            logit_scale=float(scalars["logit_scale"]),
            logit_bias=float(scalars["logit_bias"]),
            tokenizer=config["input"]["tokenizer"],
            title=f"{workdir.resolve().name} ({fingerprint(config)})",
            numbers=_numbers(workdir, step),
            provenance={
                "step": step,
                "fingerprint": fingerprint(config),
                "config": semantic(config),  # without the paths of this machine
            },
        ),
    )
    print(f"wrote {output}")
    print(f"parity not run: check it with `python -m tools.export_check {output}` (needs PyTorch)")
    return 0


def _refuse_other_tokenizer(workdir: pathlib.Path, path: str) -> None:
    """A model is worth nothing with other ids than it was trained on."""
    from input_pipeline.tokenizer import Tokenizer

    recorded = workdir / "tokenizer.sha256"
    if recorded.is_file() and Tokenizer(path, 2).sha256 != recorded.read_text().strip():
        raise UserError(f"{path} is not the tokenizer that {workdir} was trained with; restore it")


def _logit_scalars(heads: Mapping[str, Any]) -> Mapping[str, Any]:
    if "vl_logits" in heads:
        return heads["vl_logits"]
    raise UserError(
        "this run has no image-text objective, so no logit scale and bias; a SigLIP folder needs "
        "them: train with objectives.sigmoid_vl"
    )


def _numbers(workdir: pathlib.Path, step: int) -> dict[str, float]:
    """Evaluation results of that step, for the model card."""
    import json

    path = workdir / "evals" / f"{step:08d}.json"
    if not path.is_file():
        return {}
    entries = json.loads(path.read_text()).items()
    return {key: entry["value"] for key, entry in entries if entry["value"] is not None}


if __name__ == "__main__":
    cli.run(main)
