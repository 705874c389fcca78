# SPDX-License-Identifier: Apache-2.0
"""Trains: `python -m mtv_jax.train --config configs/quickstart.py --workdir runs/quickstart`.

The same command resumes a run that was stopped, and says so when there is nothing left to do.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from ml_collections import config_flags

from mtv_jax import cli
from mtv_jax.core.errors import UserError
from mtv_jax.core.position import join_position
from mtv_jax.core.typecheck import check_shapes

if TYPE_CHECKING:  # jax takes seconds to import: not before the flags are known to be good
    from mtv_jax.assemble import System
    from mtv_jax.training.checkpoint import Checkpointer
    from mtv_jax.training.state import TrainState
    from mtv_jax.training.step import TrainStep
    from mtv_jax.training.warm_start import WarmStart

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:key=value,…]")
_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory; made when absent.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Build everything, print the plan, read no data.")
_PROFILE = flags.DEFINE_string("profile", "", "Steps to trace into tb/, as FIRST:LAST.")
_ALLOW = flags.DEFINE_bool(
    "allow_changed_config", False, "Continue a run although its config means something else now."
)


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    del argv
    config = cli.config_values(_CONFIG)
    if config is None:
        raise UserError("--config is missing; start with --config configs/quickstart.py")
    if _DRY_RUN.value:
        check_shapes()
    from mtv_jax.assemble import System
    from mtv_jax.core.config import fingerprint
    from mtv_jax.dist import runtime

    if not _DRY_RUN.value:
        print(runtime.initialize(), flush=True)
    system = System(config, trusted=tuple(cli.TRUST_ROOT.value))
    print("\n  ".join([f"config {fingerprint(config)}", *system.run.notes]), flush=True)
    if _DRY_RUN.value:
        return _dry_run(system)
    if not _WORKDIR.value:
        raise UserError("--workdir is missing; it is where checkpoints and metrics go")
    return train(system, pathlib.Path(_WORKDIR.value))


def train(system: "System", workdir: pathlib.Path) -> int:
    """Trains, or goes on where the run directory stands; 0 when the run is complete."""
    import jax

    from mtv_jax.training import plan, rundir
    from mtv_jax.training.checkpoint import Checkpointer

    start = _warm_start(system, workdir)
    system.open_data()
    meaning = rundir.Meaning(config=system.config, preprocessing=system.preprocessing)
    rundir.open_rundir(workdir, meaning, allow_changed=_ALLOW.value)
    cli.log_to(workdir / "logs" / f"host{jax.process_index()}.txt")
    saver = Checkpointer(workdir, system.checkpoint)
    try:
        step = _step(system, workdir, saver.latest)
        state = _first_state(system, workdir, saver, start)
        del start  # frees a model's worth of host memory
        batches = system.batches(_first_batch(system, state))
        rundir.record_run(workdir, meaning)
        rundir.record_data(workdir, system.data.describe())
        plan.write(system.model, system.abstract_state, workdir)
        complete = _loop(system, workdir, step).run(state, batches, saver)
    finally:
        saver.close()
    if not complete:
        print("stopped by a signal; the same command goes on from here", flush=True)
        return 0
    (workdir / "DONE").touch()
    print(f"DONE {workdir}", flush=True)
    return 0


def _warm_start(system: "System", workdir: pathlib.Path) -> "WarmStart | None":
    """The parameters that `init` names, read and fitted; None for a run that goes on."""
    from mtv_jax.training.checkpoint import steps_in
    from mtv_jax.training.init_source import read_source
    from mtv_jax.training.warm_start import fit

    if not system.init.source or steps_in(workdir):
        return None
    trusted = tuple(cli.TRUST_ROOT.value)
    source = read_source(system.init, system.preprocessing, trusted=trusted)
    start = fit(source.title, source.params, system.abstract_state.params)
    print(*source.report, start.summary(), sep="\n", flush=True)
    return dataclasses.replace(start, data=source.data)


def _step(system: "System", workdir: pathlib.Path, done: int | None) -> "TrainStep":
    """The step, compiled before any data is read; of a complete run it is never called."""
    if (done or 0) >= system.run.total_steps:
        return system.train_step
    plan = system.memory_plan()
    plan.write(workdir)
    print(plan.describe(), flush=True)
    return system.compiled_step


def _first_state(
    system: "System", workdir: pathlib.Path, saver: "Checkpointer", start: "WarmStart | None"
) -> "TrainState":
    from mtv_jax.training import rundir

    if saver.latest is None:
        state = system.init_state(start.arrays if start else {})
        rundir.record_init(workdir, start.table() if start else "random initialisation\n")
        rundir.record_data(workdir, start.data if start else ())
        return state
    print(f"resuming {workdir} from step {saver.latest}", flush=True)
    if system.init.source:
        print("init.source is not read: the run has a checkpoint of its own", flush=True)
    state = saver.restore(system.abstract_state)
    rundir.reopen_at(workdir, saver.latest)
    return state


def _first_batch(system: "System", state: "TrainState") -> int:
    """The global batch at which the stream goes on."""
    position = int(join_position(np.asarray(state.position)))
    batch, rest = divmod(position, system.run.batch_size)
    if rest:
        raise UserError(
            f"the stream stands at sample {position}, which is no multiple of batch_size "
            f"{system.run.batch_size}; choose one that divides it"
        )
    return batch


def _loop(system: "System", workdir: pathlib.Path, step: "TrainStep") -> Any:
    from mtv_jax.training.loop import Loop

    return Loop(
        workdir=workdir,
        mesh=system.mesh,
        step=step,
        frozen=system.frozen,
        put=system.put,
        total_steps=system.run.total_steps,
        checkpoint_every=system.checkpoint.every,
        log_every=system.log.every,
        nonfinite=system.log.nonfinite,
        max_skips=system.log.max_skips,
        watchdog_seconds=system.run.watchdog_seconds,
        evaluate=functools.partial(_evaluate, system, workdir),
        interference=system.interference,
        objectives=system.model.objectives,
        profile=_profile_steps(),
    )


def _evaluate(
    system: "System",
    workdir: pathlib.Path,
    state: "TrainState",
    step: int,
    poll: Callable[[], None],
) -> None:
    """Runs the evaluators that are due at this step, unless their numbers are there."""
    import jax

    from mtv_jax.evaluators.suite import format_table, run_suite, with_chance, write_json

    path = workdir / "evals" / f"{step:08d}.json"
    last = step == system.run.total_steps
    due = [e for e in system.evaluators if last or (e.every and step % e.every == 0)]
    if not due or path.exists():
        return
    results = run_suite(due, system.eval_context(state, poll))
    if jax.process_index() == 0:
        table = with_chance(results)
        write_json(path, table)
        print(format_table(table), flush=True)


def _dry_run(system: "System") -> int:
    import jax

    from mtv_jax.training import plan

    with jax.set_mesh(system.mesh):
        state, metrics = jax.eval_shape(
            system.train_step, system.abstract_state, system.frozen, system.abstract_batch
        )
    del state
    print(plan.describe(system.model))
    print("metrics " + " ".join(sorted(metrics)))
    print(plan.parameter_table(system.abstract_state.params))
    return 0


def _profile_steps() -> range | None:
    if not _PROFILE.value:
        return None
    first, _, last = _PROFILE.value.partition(":")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise UserError(f"--profile={_PROFILE.value} should be FIRST:LAST, such as 10:13")
    return range(int(first), int(last))


if __name__ == "__main__":
    cli.run(main)
