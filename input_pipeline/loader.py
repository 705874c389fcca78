# SPDX-License-Identifier: Apache-2.0
"""Grain over the store, by the order law.

Global batch k is stream positions [kB, (k+1)B) and a process reads the rows that its devices own:
the global batch, in order, is the same on any topology and with any number of
workers, and where to resume is one integer.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import numpy as np
from absl import flags

from input_pipeline.records import SampleSource, Stream
from input_pipeline.store import Store
from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError, closest
from mtv_jax.core.fields import BOXES, PHRASES, SCORES, Field

_ENDLESS = 1 << 62  # batches: more than any run
_REGIONS = {BOXES.name, PHRASES.name, SCORES.name}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """One store of the mixture.

    Attributes:
        path: the store's folder.
        weight: its share of the mixture.
        sidecars: labels to open beside the base shards.
        selection: name of a selection file; "" for all rows.
        block: rows that travel together: 1 on local disk, hundreds on object storage.
        window: blocks whose rows are shuffled among each other.
    """

    path: str
    weight: float = at_least(0, 1.0)
    sidecars: tuple[str, ...] = ()
    selection: str = ""
    block: int = at_least(1, 1)
    window: int = at_least(1, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputConfig:
    """Where samples come from.

    Attributes:
        stores: the mixture, by name.
        canvas: side of the fixed uint8 canvas; 0 for twice the largest view.
        tokenizer: path of a SentencePiece model.
        text_length: ids per caption.
        workers: worker processes; 0 reads in the main process.
        read_threads: threads per process that read ahead; more than a few pay only for buckets.
        prefetch: batches each worker holds ready.
    """

    stores: Mapping[str, Mapping[str, Any]]
    canvas: int = at_least(0, 0)
    tokenizer: str = ""
    text_length: int = at_least(2, 64)
    workers: int = at_least(0, 0)
    read_threads: int = at_least(1, 1)
    prefetch: int = at_least(1, 2)


def open_streams(
    stores: Mapping[str, StoreConfig], fields: tuple[Field, ...]
) -> tuple[Stream, ...]:
    """The opened stores of a mixture.

    Raises:
        StoreError: no store, sidecar or selection of that name.
        UserError: no store, one with nothing selected, or a field that none of them has.
    """
    if not stores:
        raise UserError("input.stores is empty; give --config.input.stores.<name>.path=STORE")
    streams = tuple(_open_stream(name, config) for name, config in stores.items())
    for field in fields:
        columns = [name for stream in streams for name in stream.store.fields]
        if field.name not in columns:
            raise UserError(
                f"no store of input.stores has the column {field.name!r}"
                f"{closest(field.name, columns)}; {_remedy(stores, streams, field)}"
            )
    return streams


def _remedy(stores: Mapping[str, StoreConfig], streams: tuple[Stream, ...], field: Field) -> str:
    for name, stream in zip(stores, streams, strict=True):
        if found := stream.store.sidecar_columns().get(field.name):
            opened = tuple(stores[name].sidecars)
            return f'open it with --config.input.stores.{name}.sidecars="{(*opened, found[-1])}"'
    tool = ""
    if field.codec == "png16":
        tool = " (`python -m tools.data.depth_maps` for depth maps that you have)"
    elif field.name in _REGIONS:
        tool = " (`python -m tools.data.regions` for boxes with phrases that you have)"
    return (
        f"label the store{tool}, or open a sidecar that holds it, or leave out the objective that "
        "reads it"
    )


def _open_stream(name: str, config: StoreConfig) -> Stream:
    stream = Stream(
        store=Store.open(config.path, config.sidecars),
        weight=config.weight,
        selection=config.selection,
        block=config.block,
        window=config.window,
    )
    if not len(stream.rows):
        raise UserError(f"store {name} at {config.path} has no rows to read; ingest images first")
    for needed in ("height", "width"):
        if needed not in stream.store.fields:
            raise UserError(f"store {name} at {config.path} has no column {needed!r}")
    return stream


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalRows:
    """The rows of each global batch that one process reads.

    Attributes:
        batch_size: rows of the global batch.
        rows: this process's, ascending.
    """

    batch_size: int
    rows: np.ndarray


class _BatchRows:
    """The samples of one process, in reading order, as Grain indexes them."""

    def __init__(self, source: SampleSource, local: LocalRows):
        self._source, self._local = source, local

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch, row = divmod(index, len(self._local.rows))
        return self._source[batch * self._local.batch_size + int(self._local.rows[row])]


def batches(
    source: SampleSource, local: LocalRows, *, first: int, config: InputConfig
) -> Iterator[dict[str, Any]]:
    """This process's part of global batches first, first + 1, …, without end.

    Args:
        source: samples by position.
        local: this process's rows of a global batch.
        first: number of the first batch.
        config: workers, read threads and prefetch.
    """
    _mark_flags_parsed()
    count = len(local.rows)
    dataset = grain.MapDataset.source(_BatchRows(source, local))[first * count :].batch(count)
    reading = grain.ReadOptions(
        num_threads=config.read_threads, prefetch_buffer_size=max(config.read_threads, 1)
    )
    stream = dataset.to_iter_dataset(reading)
    if config.workers:
        options = grain.MultiprocessingOptions(
            num_workers=config.workers, per_worker_buffer_size=config.prefetch
        )
        stream = stream.mp_prefetch(options)
    return iter(stream)


def record_rows(batch: Mapping[str, Any], wanted: np.ndarray) -> list[str]:
    """`store/shard/row` names of the marked rows of a batch, for ledgers and logs."""
    return ["/".join(map(str, ids)) for ids in np.asarray(batch["record_id"])[wanted]]


def _mark_flags_parsed() -> None:
    """Grain 0.2.18 reads an absl flag, which fails outside absl.app (notebooks, tests)."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
