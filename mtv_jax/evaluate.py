# SPDX-License-Identifier: Apache-2.0
"""Evaluates a run or an exported folder.

    python -m mtv_jax.evaluate --workdir runs/quickstart
    python -m mtv_jax.evaluate --model runs/quickstart/export --config configs/quickstart.py

Prints a table and writes it as JSON, every number with its chance level where it has one.
"""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_flags

from mtv_jax import cli
from mtv_jax.core.errors import UserError

if TYPE_CHECKING:
    from mtv_jax.evaluators.base import EvalContext, Evaluator

_CONFIG = config_flags.DEFINE_config_file("config", None, "Take `evals` from here, not the run.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory to evaluate.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint of the run; the newest by default.")
_MODEL = flags.DEFINE_string("model", None, "Exported folder to evaluate, instead of a run.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file; WORKDIR/summary.json by default.")


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    del argv
    if bool(_WORKDIR.value) == bool(_MODEL.value):
        raise UserError("give either --workdir RUN or --model EXPORTED_FOLDER")
    import jax

    from mtv_jax.dist import runtime
    from mtv_jax.evaluators.suite import format_table, run_suite, with_chance, write_json

    print(runtime.initialize(), flush=True)
    config = cli.config_values(_CONFIG)
    if _MODEL.value:
        evaluators, context, about = _exported(_MODEL.value, config)
    else:
        evaluators, context, about = _run(_WORKDIR.value, config)
    if not evaluators:
        raise UserError(
            "there are no evaluators: give --config with some in its `evals`, such as "
            "configs/eval/paper.py:imagenet=DIR or configs/eval/scenes.py"
        )
    for evaluator in evaluators:
        if not evaluator.unavailable(context.model):
            evaluator.check(())  # before any work
    results: dict[str, dict[str, float]] = {}
    output = _OUTPUT.value or (_WORKDIR.value and f"{_WORKDIR.value}/summary.json")
    for evaluator in evaluators:
        results |= run_suite([evaluator], context)
        if jax.process_index() == 0 and output:  # a run that is cut keeps what it has measured
            write_json(pathlib.Path(output), {**about, "numbers": with_chance(results)})
    if jax.process_index() == 0:
        print(format_table(with_chance(results)))
        if output:
            print(f"wrote {output}")
    return 0


def _run(
    workdir: str, config: dict[str, Any] | None
) -> "tuple[Sequence[Evaluator], EvalContext, dict]":
    """Evaluators, context and provenance of a run's checkpoint, on whatever devices are here."""
    from mtv_jax.core.config import fingerprint
    from mtv_jax.reopen import restored
    from mtv_jax.training.rundir import run_config

    trained = run_config(pathlib.Path(workdir))
    if config is not None:
        trained["evals"] = config["evals"]
    system, state = restored(
        pathlib.Path(workdir), trained, step=_STEP.value, trusted=tuple(cli.TRUST_ROOT.value)
    )
    about = {"workdir": workdir, "step": int(state.step), "config": fingerprint(trained)}
    return system.evaluators, system.eval_context(state), about


def _exported(
    model: str, config: dict[str, Any] | None
) -> "tuple[Sequence[Evaluator], EvalContext, dict]":
    """Evaluators, context and provenance of an exported folder."""
    if config is None:
        raise UserError("--model needs --config, whose `evals` say what to measure")
    from mtv_jax.assemble import named_objects
    from mtv_jax.dist.mesh import MeshConfig, make_mesh
    from mtv_jax.evaluators.base import EvalContext, EvalModel
    from mtv_jax.interop.loading import load_folder

    trusted = tuple(cli.TRUST_ROOT.value)
    trained = load_folder(model, trusted=trusted)
    if trained.report:
        print(trained.report, flush=True)
    evaluators = tuple(named_objects("evals", config["evals"], trusted))
    subject = EvalModel(
        encoder=trained.encoder,
        params=trained.params,
        objectives=trained.objectives,
        tokenizer=trained.tokenizer,
        images=trained.images,
        pools=trained.pools,
    )
    context = EvalContext(subject, make_mesh(MeshConfig()))
    return evaluators, context, {"model": model, "provenance": dict(trained.provenance)}


if __name__ == "__main__":
    cli.run(main)
