# SPDX-License-Identifier: Apache-2.0
"""Made scenes with their exact labels: what readers of the sidecar `scene_v1` share."""

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64

from input_pipeline.eval_data import EvalData
from input_pipeline.eval_set import EvalSet
from input_pipeline.store import Store
from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError

_SIDECAR = "scene_v1"
_MAKE = "make scenes, whose test split has it: python -m tools.data.make_scenes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MadeScenes(EvalData):
    """A store as `tools.data.make_scenes` writes it for its test split.

    Attributes:
        store: path of the store.
        selection: name of a selection file; "" for all rows.
        limit: scenes used, the first ones; 0 for all.
    """

    store: str
    selection: str = ""
    limit: int = at_least(0, 0)

    columns: ClassVar[tuple[str, ...]] = ()

    @property
    def scenes(self) -> EvalSet:
        """The rows of the store."""
        return EvalSet(
            store=self.store, selection=self.selection, sidecars=(_SIDECAR,), limit=self.limit
        )

    def open(self) -> None:
        """Raises a `UserError`: no such store, or one without these labels."""
        if _SIDECAR not in Store.open(self.store).sidecars:
            raise UserError(f"the store {self.store} has no sidecar {_SIDECAR!r}; {_MAKE}")
        self.scenes.open()
        for name in self.columns:
            try:
                self.scenes.require(name)
            except UserError as error:
                raise UserError(f"{error}; {_MAKE}") from error

    def __str__(self) -> str:
        return str(self.scenes)

    def column(self, name: str) -> list[Any]:
        """One column of all scenes, None where there is nothing; read once."""
        return _column(self.scenes, name)

    def numbers(self, name: str, count: int) -> Float64[np.ndarray, "b count"]:
        """A column of so many numbers, which every scene has to have.

        Raises:
            UserError: a scene lacks it, or is damaged.
        """
        return _numbers(self.scenes, name, count)


@functools.lru_cache(maxsize=16)
def _column(scenes: EvalSet, name: str) -> list[Any]:
    return scenes.column(name)


@functools.lru_cache(maxsize=16)
def _numbers(scenes: EvalSet, name: str, count: int) -> Float64[np.ndarray, "b count"]:
    values = _column(scenes, name)
    short = sum(value is None or len(value) != count for value in values)
    if short:
        raise UserError(f"{short} scenes of {scenes} have no {name!r} of {count}; {_MAKE}")
    return np.asarray(values, np.float64)
