# SPDX-License-Identifier: Apache-2.0
"""Finished runs and exported folders, opened again: to evaluate, to predict, to export."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from input_pipeline.tokenizer import Tokenizer
from mtv_jax.assemble import System, named_objects
from mtv_jax.core import config as cfg
from mtv_jax.core.errors import UserError
from mtv_jax.core.passes import Wants, merge_plans
from mtv_jax.interop.hf_folder import is_hf_folder
from mtv_jax.interop.loading import load_folder
from mtv_jax.interop.save import MODEL_FILE
from mtv_jax.interop.trained import TrainedEncoder
from mtv_jax.models.encoder import Encoder
from mtv_jax.training.checkpoint import Checkpointer, load_numpy, newest_step
from mtv_jax.training.rundir import read_data, read_init, require_preprocessing, run_config
from mtv_jax.training.state import TrainState


def restored(
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    *,
    step: int | None = None,
    trusted: tuple[str, ...] = (),
) -> tuple[System, TrainState]:
    """A run's system and a checkpoint of it (the newest by default), on the devices that are here.

    Raises:
        UserError: no such checkpoint, one of another model, or another tokenizer in the place of
            the run's.
    """
    here = {"mesh": {"data": -1, "fsdp": 1}, "micro_batches": 1}
    system = System({**config, **here}, trusted=trusted)
    require_preprocessing(workdir, system.preprocessing)
    saver = Checkpointer(workdir, system.checkpoint)
    try:
        return system, saver.restore(system.abstract_state, step)
    finally:
        saver.close()


def open_model(
    path: str | os.PathLike[str], *, step: int | None = None, trusted: tuple[str, ...] = ()
) -> TrainedEncoder:
    """The encoder of an exported folder, or of a run.

    Args:
        path: the folder, or the run directory.
        step: checkpoint of the run; the newest by default.
        trusted: package roots whose classes it may name besides our own.

    Raises:
        UserError: neither is there.
    """
    root = pathlib.Path(path)
    if (root / MODEL_FILE).is_file() or is_hf_folder(root):
        return load_folder(root, trusted=trusted)
    if (root / "config.json").is_file():
        return open_run(root, step=step, trusted=trusted)
    raise UserError(
        f"{root} is neither a run (config.json), nor an exported folder ({MODEL_FILE}), nor a "
        "SigLIP model of transformers"
    )


def open_run(
    workdir: pathlib.Path, *, step: int | None = None, trusted: tuple[str, ...] = ()
) -> TrainedEncoder:
    """The encoder of a run's checkpoint (the newest by default), as it would be exported.

    Raises:
        UserError: no such checkpoint, or the run's tokenizer is gone or another.
    """
    config = run_config(workdir)
    step = newest_step(workdir) if step is None else step
    params = load_numpy(workdir, step, ("params",))["params"]
    data = config["input"]
    has_text = "text" in params["backbone"]
    encoder = cfg.build(Encoder, config["model"], "model")
    objectives = tuple(named_objects("objectives", config["objectives"], trusted))
    plan = merge_plans(objective.passes() for objective in objectives)
    trained = TrainedEncoder(
        encoder=dataclasses.replace(encoder, has_text_tower=has_text, dtype="float32"),
        params=params,
        objectives={o.name: o for o in objectives if o.predicts() != Wants()},
        tokenizer=Tokenizer(data["tokenizer"], data["text_length"]) if has_text else None,
        pools=any(
            wants.pooled
            for request, wants in plan.items()
            if request.tower == "image" and request.who == "student"
        ),
        provenance={
            "step": step,
            "init": read_init(workdir),
            "fingerprint": cfg.fingerprint(config),
            "config": cfg.semantic(config),  # without the paths of this machine
            "data": read_data(workdir),
        },
    )
    require_preprocessing(workdir, trained.preprocessing)
    return trained
