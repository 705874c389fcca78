# SPDX-License-Identifier: Apache-2.0
"""The stores of a mixture, opened, as what a step reads: batches, and tables of phrases."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from input_pipeline import licences
from input_pipeline.loader import InputConfig, LocalRows, StoreConfig, batches, open_streams
from input_pipeline.records import SampleSource, Stream
from input_pipeline.tokenizer import Tokenizer
from input_pipeline.vocabulary import Vocabulary
from mtv_jax.core import config as cfg
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import Field


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """A mixture, opened on first use.

    Attributes:
        config: its stores, and how they are read.
        fields: columns that objectives read.
        canvas: side of the square raster canvas in pixels.
        tokenizer: for captions and phrases.
        seed: of the order.
    """

    config: InputConfig
    fields: tuple[Field, ...]
    canvas: int
    tokenizer: Tokenizer | None
    seed: int

    @functools.cached_property
    def streams(self) -> tuple[Stream, ...]:
        """The opened stores; errors as of `open_streams`."""
        stores = {
            name: cfg.build(StoreConfig, spec, f"input.stores.{name}")
            for name, spec in self.config.stores.items()
        }
        return open_streams(stores, self.fields)

    @functools.cached_property
    def vocabularies(self) -> dict[str, Vocabulary]:
        """By column, the phrases of all stores together.

        Raises:
            UserError: a column of phrases in which there are none.
        """
        stores = [stream.store for stream in self.streams]
        columns = [field.name for field in self.fields if field.encode == "vocabulary"]
        found = {column: Vocabulary.of(stores, column) for column in columns}
        for column, vocabulary in found.items():
            if not len(vocabulary):
                raise UserError(
                    f"the stores of the mixture hold no phrase in the column {column!r}; label "
                    "their images, or leave out the objective that reads it"
                )
        return found

    def describe(self) -> list[dict[str, Any]]:
        """What is learned from, store by store, JSON-able: how many rows, and whose labels."""
        return [
            {
                "store": stream.store.name,
                "rows": len(stream.rows),
                "weight": stream.weight,
                "selection": stream.selection,
                "labels": [
                    dataclasses.asdict(entry)
                    for entry in licences.terms(stream.store.path, stream.store.opened_sidecars)
                ],
            }
            for stream in self.streams
        ]

    def batches(self, local: LocalRows, *, first: int) -> Iterator[dict[str, Any]]:
        """This process's part of global batches first, first + 1, …, as numpy."""
        source = SampleSource(
            self.streams,
            self.fields,
            self.canvas,
            self.tokenizer,
            self.vocabularies,
            self.seed,
        )
        return batches(source, local, first=first, config=self.config)

    def phrase_ids(self, column: str, length: int) -> np.ndarray:
        """Token ids of a column's vocabulary: int32 [u t], `length` each."""
        assert self.tokenizer is not None
        return self.vocabularies[column].ids(Tokenizer(self.tokenizer.path, length))
