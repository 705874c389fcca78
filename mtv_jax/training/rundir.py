# SPDX-License-Identifier: Apache-2.0
"""The run directory: what was run, on what, and whether it may be continued."""

import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import jax

from mtv_jax.core import config as cfg
from mtv_jax.core.errors import UserError

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def open_rundir(workdir: pathlib.Path, config: Mapping[str, Any], *, allow_changed: bool) -> None:
    """Creates or reopens a run directory and records config, environment and git state.

    Args:
        workdir: the run directory.
        config: the resolved config, plain values.
        allow_changed: continue a run whose meaning changed.

    Raises:
        UserError: the directory cannot be written, or holds a run with another meaning.
    """
    try:
        for name in ("logs", "evals", "tb"):
            (workdir / name).mkdir(parents=True, exist_ok=True)
        probe = workdir / "logs" / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to --workdir {workdir}: {error.strerror}; choose another folder"
        ) from error
    stored = workdir / "config.json"
    if stored.exists():
        old = json.loads(stored.read_text())
        _refuse_other_meaning(workdir, old, config, allow_changed=allow_changed)
        changes = cfg.diff(cfg.flatten(old), cfg.flatten(config))
    else:
        changes = []
    if jax.process_index() == 0:
        stored.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        with (workdir / "config.diff").open("a") as file:
            file.writelines(f"{line}\n" for line in changes)
        (workdir / "env.txt").write_text(_environment())
        (workdir / "git.txt").write_text(_git_state())


def reopen_at(workdir: pathlib.Path, step: int) -> None:
    """Forgets that the run was done, and evaluations of steps that will be taken again."""
    (workdir / "DONE").unlink(missing_ok=True)
    for path in (workdir / "evals").glob("*.json"):
        if path.stem.isdigit() and int(path.stem) > step and jax.process_index() == 0:
            path.unlink(missing_ok=True)


def _refuse_other_meaning(
    workdir: pathlib.Path, old: Mapping[str, Any], new: Mapping[str, Any], *, allow_changed: bool
) -> None:
    changes = cfg.diff(cfg.semantic(old), cfg.semantic(new))
    if changes and not allow_changed:
        raise UserError(
            f"{workdir} holds a run with another meaning ({'; '.join(changes)}); use another "
            "--workdir, or continue it all the same with --allow_changed_config"
        )


def _environment() -> str:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    devices = [f"{d.device_kind} x{len(jax.devices())}" for d in jax.devices()[:1]]
    lines = [f"python {sys.version.split()[0]}", platform.platform(), *versions, *devices]
    return "\n".join([*lines, f"processes {jax.process_count()}", " ".join(sys.argv)]) + "\n"


def _git_state() -> str:
    root = pathlib.Path(__file__).parents[2]
    try:
        commands = (("rev-parse", "HEAD"), ("status", "--short"), ("diff", "HEAD"))
        return "".join(
            subprocess.run(
                ["git", *command], cwd=root, capture_output=True, text=True, check=True
            ).stdout
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout\n"
