# SPDX-License-Identifier: Apache-2.0
"""Exports a run as a folder that transformers and `mtv_jax.interop.load` open.

    python -m mtv_jax.export --workdir runs/quickstart --output runs/quickstart/export

Needs no accelerator and no PyTorch, whatever topology saved the checkpoint.
"""

import pathlib
from collections.abc import Sequence

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
    from mtv_jax.interop.card import labels_not_for_sale
    from mtv_jax.interop.save import save_folder
    from mtv_jax.reopen import open_run

    trained = open_run(workdir, step=_STEP.value, trusted=tuple(cli.TRUST_ROOT.value))
    step, fingerprint = trained.provenance["step"], trained.provenance["fingerprint"]
    output = pathlib.Path(_OUTPUT.value or workdir / "export" / str(step))
    title = f"{workdir.resolve().name} ({fingerprint})"
    save_folder(output, trained, title=title, numbers=_numbers(workdir, step))
    print(f"wrote {output}")
    if forbidding := labels_not_for_sale(trained.provenance):
        print(f"not for commercial use: it learned from {', '.join(forbidding)}")
    print(f"parity not run: check it with `python -m tools.export_check {output}` (needs PyTorch)")
    return 0


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
