# SPDX-License-Identifier: Apache-2.0
"""The contract of data that evaluators read: a store, or a data set as it is distributed."""

import abc

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from mtv_jax.core.errors import UserError

IGNORED = 255  # in `segments`: what is scored nowhere


class EvalData(abc.ABC):
    """Images in a fixed order, with the labels that there are.

    Frozen dataclasses implement it: equal ones share their features. A set has the same rows on
    every process and for every model, whatever is wrong with one.
    """

    @abc.abstractmethod
    def open(self) -> None:
        """Finds the files now.

        Raises:
            UserError: they are not there, and what to do about it.
        """

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image, upright; black, and logged, if it cannot be read."""

    def labels(self) -> Int64[np.ndarray, " b"]:
        """The true class of every image."""
        raise UserError(f"{self} has no class labels")

    def class_names(self) -> list[str]:
        """Names of the classes, in label order."""
        raise UserError(f"{self} names no classes")

    def captions(self) -> list[tuple[str, ...]]:
        """Every image's captions, () where there is none."""
        raise UserError(f"{self} has no captions")

    def segments(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """The class of every pixel, or `IGNORED`, as large as the image."""
        raise UserError(f"{self} has no segments")

    def segment_names(self) -> list[str]:
        """Names of the classes of `segments`, in the order of their numbers."""
        raise UserError(f"{self} has no segments")

    def require(self, name: str) -> None:
        """Raises a `UserError` when there is no map called `name`."""
        raise UserError(f"{self} has no maps {name!r}")

    def raster(self, index: int, name: str) -> Shaped[np.ndarray, "h w"]:
        """A map of one image, 0 where it is unknown; one zero where there is none at all."""
        raise UserError(f"{self} has no maps {name!r}")
