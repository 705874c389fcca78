# SPDX-License-Identifier: Apache-2.0
"""Where a run's first parameters come from: chance, a run directory, or a model's folder."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxtyping import PyTree

from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError
from mtv_jax.interop.hf_folder import is_hf_folder
from mtv_jax.interop.loading import load_folder
from mtv_jax.interop.preprocessing import spec_differences
from mtv_jax.interop.save import MODEL_FILE
from mtv_jax.training.checkpoint import load_numpy, newest_step
from mtv_jax.training.rundir import read_data, recorded_preprocessing

_TOKENIZER = "tokenizer_sha256"


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitConfig:
    """The first parameters. Not read when a run goes on from a checkpoint of its own.

    Attributes:
        source: run directory, exported folder, or a SigLIP model of transformers; "" for random
            initialisation.
        step: checkpoint of that run, -1 for the newest; a folder has but one.
    """

    source: str = ""
    step: int = at_least(-1, -1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitSource:
    """A trained model.

    Attributes:
        title: names it.
        params: `{"backbone", "heads"}`, numpy.
        preprocessing: what its towers read; {} when unknown.
        report: lines on what was found there, and on what this run reads differently.
        data: what it learned from, as `rundir.read_data` gives it; () when unknown.
    """

    title: str
    params: PyTree
    preprocessing: Mapping[str, Any]
    report: tuple[str, ...] = ()
    data: tuple[Mapping[str, Any], ...] = ()


def read_source(
    config: InitConfig, preprocessing: Mapping[str, Any], *, trusted: tuple[str, ...] = ()
) -> InitSource:
    """What `config.source` holds.

    Args:
        config: with a source.
        preprocessing: this run's.
        trusted: package roots whose objectives an export may name besides our own.

    Raises:
        UserError: nothing there, no such checkpoint, or another tokenizer.
    """
    root = pathlib.Path(config.source)
    if not root.is_dir():
        raise UserError(f"init.source {root} is not there; give a run or an exported folder")
    if (root / MODEL_FILE).is_file() or is_hf_folder(root):
        source = _exported(root, trusted)
    else:
        source = _trained(root, config.step)
    both = preprocessing.keys() & source.preprocessing.keys()
    here, there = (
        {key: spec[key] for key in both} for spec in (preprocessing, source.preprocessing)
    )
    if here.get(_TOKENIZER) != there.get(_TOKENIZER):
        raise UserError(
            f"init.source {root} was trained with another tokenizer than input.tokenizer; give "
            "this run the source's"
        )
    differences = [f"unlike the source, {words}" for words in spec_differences(here, there)]
    return dataclasses.replace(source, report=(*source.report, *differences))


def _trained(workdir: pathlib.Path, step: int) -> InitSource:
    step = newest_step(workdir) if step < 0 else step
    return InitSource(
        title=f"{workdir} step {step}",
        params=load_numpy(workdir, step, ("params",))["params"],
        preprocessing=recorded_preprocessing(workdir),
        data=tuple(read_data(workdir)),
    )


def _exported(folder: pathlib.Path, trusted: tuple[str, ...]) -> InitSource:
    trained = load_folder(folder, trusted=trusted)
    return InitSource(
        title=str(folder),
        params=trained.params,
        preprocessing=trained.preprocessing,
        report=tuple(trained.report.splitlines()),
        data=tuple(trained.provenance.get("data") or ()),
    )
