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
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8

from input_pipeline.example import Column, Value
from mtv_jax.core.config import at_least
from mtv_jax.core.fields import Field

_CHUNK = 2**24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Licence:
    """On what terms an expert's labels may be used.

    Attributes:
        name: such as "Apache-2.0".
        commercial: whether commercial use is allowed; None where the user has to know.
    """

    name: str
    commercial: bool | None


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an expert says of one image.

    Attributes:
        labels: columns of the sidecar; none where there is nothing to keep.
        reason: why there is none, to count it under.
        detail: of the reason.
        dropped: how many parts of labels (boxes) were left out, by reason.
    """

    labels: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    reason: str = ""
    detail: str = ""
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Labeller(abc.ABC):
    """An expert with its weights on a device.

    What it does with a sample has three steps; those on threads run while the device works.
    """

    digest: str = ""  # sha256 of the weights; "" without any

    @abc.abstractmethod
    def prepare(self, sample: Sample) -> Any:
        """First, on a thread: what the device needs of a sample.

        Raises:
            Rejected: there is nothing to label, and why. Other exceptions end the run.
        """

    def shape(self, prepared: Any) -> Hashable:
        """Samples of equal shape make a batch."""
        del prepared
        return ()

    @abc.abstractmethod
    def infer(self, prepared: Sequence[Any]) -> Sequence[Any]:
        """Second, on the device: results of a batch of one shape, on the host.

        There are `batch_size` of them or, at the end of a shard, a smaller power of two: a device
        sees few shapes.
        """

    @abc.abstractmethod
    def finish(self, prepared: Any, result: Any) -> Outcome:
        """Third, on a thread: labels of a sample from its result."""


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

    def reads(self, columns: Collection[str]) -> tuple[str, ...]:
        """What it needs beside the image.

        Args:
            columns: those of the base and of all sidecars.

        Returns:
            Columns, there or not: what is not there is an error of the driver.
        """
        del columns
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
