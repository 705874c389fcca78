# SPDX-License-Identifier: Apache-2.0
"""Where a run's first parameters come from: chance, a run directory, or an exported folder."""

import dataclasses
import pathlib

from jaxtyping import PyTree

from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError
from mtv_jax.interop.loading import load_folder
from mtv_jax.interop.save import MODEL_FILE
from mtv_jax.training.checkpoint import load_numpy, newest_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitConfig:
    """The first parameters. Not read when a run goes on from a checkpoint of its own.

    Attributes:
        source: run directory or exported folder; "" for random initialisation.
        step: checkpoint of that run, -1 for the newest; an export has but one.
    """

    source: str = ""
    step: int = at_least(-1, -1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitSource:
    """A trained model.

    Attributes:
        title: names it.
        params: `{"backbone", "heads"}`, numpy.
        tokenizer: hash of its tokenizer; "" when it has none.
    """

    title: str
    params: PyTree
    tokenizer: str


def read_source(config: InitConfig, tokenizer: str, *, trusted: tuple[str, ...] = ()) -> InitSource:
    """What `config.source` holds.

    Args:
        config: with a source.
        tokenizer: hash of this run's; "" when it reads no texts.
        trusted: package roots whose objectives an export may name besides our own.

    Raises:
        UserError: nothing there, no such checkpoint, or another tokenizer.
    """
    root = pathlib.Path(config.source)
    if not root.is_dir():
        raise UserError(f"init.source {root} is not there; give a run or an exported folder")
    if (root / MODEL_FILE).is_file():
        source = _exported(root, trusted)
    else:
        source = _trained(root, config.step)
    if source.tokenizer and tokenizer and source.tokenizer != tokenizer:
        raise UserError(
            f"init.source {root} was trained with another tokenizer than input.tokenizer; give "
            "this run the source's"
        )
    return source


def _trained(workdir: pathlib.Path, step: int) -> InitSource:
    step = newest_step(workdir) if step < 0 else step
    recorded = workdir / "tokenizer.sha256"
    return InitSource(
        title=f"{workdir} step {step}",
        params=load_numpy(workdir, step, ("params",))["params"],
        tokenizer=recorded.read_text().strip() if recorded.is_file() else "",
    )


def _exported(folder: pathlib.Path, trusted: tuple[str, ...]) -> InitSource:
    trained = load_folder(folder, trusted=trusted)
    return InitSource(
        title=str(folder),
        params=trained.params,
        tokenizer=trained.tokenizer.sha256 if trained.tokenizer else "",
    )
