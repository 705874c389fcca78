# SPDX-License-Identifier: Apache-2.0
"""The run directory: what was run, on what, and whether it may be continued."""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from input_pipeline.files import write_atomically
from mtv_jax.core import config as cfg
from mtv_jax.core.errors import UserError
from mtv_jax.interop.preprocessing import spec_differences
from mtv_jax.training.checkpoint import steps_in

PREPROCESSING_FILE = "preprocessing.json"
_DATA_FILE = "data.json"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a run is, whatever it runs on.

    Attributes:
        config: the resolved config, plain values.
        preprocessing: what happens to images and texts before the towers; it names the tokenizer
            by its hash, wherever that lies.
    """

    config: Mapping[str, Any]
    preprocessing: Mapping[str, Any]

    def fields(self) -> dict[str, Any]:
        """What may not change while a run goes on."""
        spec = {f"preprocessing.{key}": value for key, value in self.preprocessing.items()}
        return {**cfg.semantic(self.config), **spec}


def open_rundir(workdir: pathlib.Path, meaning: Meaning, *, allow_changed: bool) -> None:
    """Creates or reopens a run directory; writes nothing that tells of a run.

    Args:
        workdir: the run directory.
        meaning: of the run to be started or continued.
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
    old = _recorded(workdir)
    if old and steps_in(workdir) and not allow_changed:
        _refuse_other_meaning(workdir, old, meaning)


def record_run(workdir: pathlib.Path, meaning: Meaning) -> None:
    """Writes config, preprocessing, environment and git state of a run that is about to step."""
    if jax.process_index():
        return
    old, config = _recorded(workdir), dict(meaning.config)
    if old and steps_in(workdir) and "init" in old.config:
        config["init"] = old.config["init"]  # a run that goes on does not read another one
    changes = cfg.diff(cfg.flatten(old.config), cfg.flatten(config)) if old else []
    with (workdir / "config.diff").open("a") as file:
        file.writelines(f"{line}\n" for line in changes)
    (workdir / "env.txt").write_text(_environment())
    (workdir / "git.txt").write_text(_git_state())
    spec = json.dumps(meaning.preprocessing, indent=1) + "\n"
    write_atomically(workdir / PREPROCESSING_FILE, spec.encode())
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    write_atomically(workdir / "config.json", text.encode())


def record_data(workdir: pathlib.Path, stores: Sequence[Mapping[str, Any]]) -> None:
    """Adds to what a run learned from: before it went on, or by the model that it began with."""
    if jax.process_index():
        return
    known = read_data(workdir)
    known += [store for store in stores if store not in known]
    text = json.dumps(known, indent=1) + "\n"
    write_atomically(workdir / _DATA_FILE, text.encode())


def read_data(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """What a run learned from, a description of each store; [] where it was not recorded."""
    path = workdir / _DATA_FILE
    return json.loads(path.read_text()) if path.is_file() else []


def run_config(workdir: pathlib.Path) -> dict[str, Any]:
    """The resolved config that a run directory holds.

    Raises:
        UserError: there is none.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir} holds no run (no config.json); train one first")
    return json.loads(path.read_text())


def recorded_preprocessing(workdir: pathlib.Path) -> dict[str, Any]:
    """What a run was trained under; {} where none was recorded."""
    path = workdir / PREPROCESSING_FILE
    return json.loads(path.read_text()) if path.is_file() else {}


def require_preprocessing(workdir: pathlib.Path, spec: Mapping[str, Any]) -> None:
    """Raises a `UserError` when a model would read other pixels or ids than it was trained on."""
    recorded = recorded_preprocessing(workdir)
    if different := spec_differences(spec, recorded) if recorded else []:
        raise UserError(
            f"{workdir} was trained under another preprocessing ({'; '.join(different)}); restore "
            "its tokenizer, or use the version that trained it"
        )


def record_init(workdir: pathlib.Path, text: str) -> None:
    """Writes where the first parameters of a new run came from."""
    if jax.process_index() == 0:
        (workdir / "init.txt").write_text(text)


def read_init(workdir: pathlib.Path) -> str:
    """Where a run's first parameters came from, in a line."""
    path = workdir / "init.txt"
    return path.read_text().partition("\n")[0] if path.is_file() else ""


def _recorded(workdir: pathlib.Path) -> Meaning | None:
    """The meaning of the run that a directory holds."""
    try:
        config = json.loads((workdir / "config.json").read_text())
        return Meaning(config=config, preprocessing=recorded_preprocessing(workdir))
    except FileNotFoundError:
        return None


def reopen_at(workdir: pathlib.Path, step: int) -> None:
    """Forgets that the run was done, and evaluations of steps that will be taken again."""
    (workdir / "DONE").unlink(missing_ok=True)
    for path in (workdir / "evals").glob("*.json"):
        if path.stem.isdigit() and int(path.stem) > step and jax.process_index() == 0:
            path.unlink(missing_ok=True)


def _refuse_other_meaning(workdir: pathlib.Path, old: Meaning, new: Meaning) -> None:
    if changes := cfg.diff(old.fields(), new.fields()):
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
