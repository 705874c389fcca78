# SPDX-License-Identifier: Apache-2.0
"""The contract of an expert: what it reads of a store, and the labels it writes beside.

An `Expert` is settings; it is cheap, frozen and picklable, so that any process can be told to run
it. `load` makes a `Labeller` of it, with the weights on a device. The driver owns reading,
batching, writing, retries and resuming. It prepares samples on threads while the device works.
"""

import abc
import dataclasses
import hashlib
import pathlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8

from input_pipeline.example import Column, Value
from mtv_jax.core.config import at_least
from mtv_jax.core.fields import Field
from tools.data.depth_values import Rejected

Labels = Mapping[str, Value]
_CHUNK = 2**24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Licence:
    """On what terms an expert's labels may be used.

    Attributes:
        name: such as "Apache-2.0".
        commercial: whether commercial use is allowed.
    """

    name: str
    commercial: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One image of a store, and the columns that the expert asked for.

    Attributes:
        key: of the record.
        image: as it is stored, upright; one black pixel for experts that do not see.
        columns: those of `Expert.reads` that the record has.
    """

    key: str
    image: UInt8[np.ndarray, "h w 3"]
    columns: Mapping[str, Column]


class Labeller(abc.ABC):
    """An expert with its weights on a device."""

    digest: str = ""  # sha256 of the weights; "" without any

    @abc.abstractmethod
    def prepare(self, sample: Sample) -> Any:
        """What the device needs of a sample; runs on a thread.

        Raises:
            Rejected: there is nothing to label, and why.
        """

    def shape(self, prepared: Any) -> Hashable:
        """Samples of equal shape make a batch."""
        del prepared
        return ()

    @abc.abstractmethod
    def label(self, prepared: Sequence[Any]) -> list[Labels | Rejected]:
        """Labels of a batch, `batch_size` of one shape; the last ones may be fillers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expert(abc.ABC):
    """Base of all experts; the fields are its settings.

    Attributes:
        name: its key in the config.
        sidecar: what it writes.
        batch_size: samples that the device works on at a time.
    """

    name: str
    sidecar: str
    batch_size: int = at_least(1, 16)

    sees: ClassVar[bool] = True  # whether it looks at images

    @property
    @abc.abstractmethod
    def licence(self) -> Licence:
        """Of its weights, and so of what it writes."""

    @abc.abstractmethod
    def emits(self) -> tuple[Field, ...]:
        """Columns of the sidecar."""

    def reads(self) -> tuple[str, ...]:
        """Columns beside the image, of the base or of a sidecar that an earlier expert wrote."""
        return ()

    @abc.abstractmethod
    def load(self, device: str) -> Labeller:
        """The expert at work.

        Raises:
            UserError: weights or packages that are missing, and where to get them.
        """


def digest_of(*paths: pathlib.Path) -> str:
    """sha256 over the contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
