# SPDX-License-Identifier: Apache-2.0
"""Writes the two stores of made scenes, shard by shard, in worker processes.

A shard is a pure function of the settings and its number, so the stores do not depend on the number
of workers, and a killed run goes on with the shards that are missing.
"""

import dataclasses
import json
import pathlib

from input_pipeline import files, store
from mtv_jax.core.errors import UserError
from mtv_jax.core.progress import Progress
from tools.data import parallel
from tools.scenes.classes.catalog import CLASSES
from tools.scenes.identity import HELD_OUT
from tools.scenes.labels import FIELDS, HOLDERS, make_rows
from tools.scenes.sample import SPLITS, make_sample

VERSION = 1  # of what a seed means: raise it when a scene comes out differently
SHARD_ROWS = 500
_SETTINGS = "scenes.json"
_COUNT_EVERY = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What determines the scenes.

    Attributes:
        train: number of training scenes.
        test: number of test scenes.
        size: short side of the pictures in pixels.
        seed: of everything.
        version: of this renderer.
    """

    train: int
    test: int
    size: int = 128
    seed: int = 0
    version: int = VERSION


@dataclasses.dataclass(frozen=True)
class _Task:
    """One shard to make, of rows [start, stop) of a split."""

    directory: pathlib.Path
    settings: Settings
    split: str
    shard: int
    start: int
    stop: int

    @property
    def finished(self) -> bool:
        return all(
            store.shard_path(self.directory, holder, self.shard).exists()
            for holder in HOLDERS[self.split]
        )


def write_stores(output: pathlib.Path, settings: Settings, workers: int) -> None:
    """Makes the stores `output`/train and `output`/test, or what is missing of them.

    Raises:
        UserError: `output` holds something else, or scenes of other settings.
        OSError: `output` cannot be written.
    """
    _claim(output, settings)
    tasks = [task for split in SPLITS for task in _tasks(output / split, settings, split)]
    missing = [task for task in tasks if not task.finished]
    done = sum(task.stop - task.start for task in tasks if task.finished)
    progress = Progress("make_scenes", settings.train + settings.test, unit="scenes")
    progress.skip(done)
    for _ in parallel.map_shards(
        _write_shard,
        missing,
        workers=workers,
        on_progress=lambda number: progress.show(done + number),
    ):
        pass
    for split in SPLITS:
        _finish(output / split, settings, split)
    progress.finish(settings.train + settings.test)


def _claim(output: pathlib.Path, settings: Settings) -> None:
    """Notes the settings in `output`, or checks those that are noted there."""
    wanted = dataclasses.asdict(settings)
    path = output / _SETTINGS
    if path.exists():
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:
            raise UserError(f"{path} cannot be read ({error}): remove {output}") from error
        if found != wanted:
            raise UserError(
                f"{output} holds scenes of other settings ({_listed(found)}; wanted "
                f"{_listed(wanted)}): choose another --output or remove it"
            )
        return
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output} is not empty and holds no made scenes: choose another")
    output.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, json.dumps(wanted, indent=1).encode() + b"\n")


def _listed(settings: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _tasks(directory: pathlib.Path, settings: Settings, split: str) -> list[_Task]:
    count = getattr(settings, split)
    starts = range(0, count, SHARD_ROWS)
    return [
        _Task(directory, settings, split, shard, start, min(start + SHARD_ROWS, count))
        for shard, start in enumerate(starts)
    ]


def _write_shard(task: _Task) -> None:
    rows = {holder: [] for holder in HOLDERS[task.split]}
    for index in range(task.start, task.stop):
        sample = make_sample(task.settings.seed, task.split, index, task.settings.size)
        for holder, row in make_rows(sample).items():
            rows[holder].append(row)
        if (index + 1 - task.start) % _COUNT_EVERY == 0:
            parallel.count_done(_COUNT_EVERY)
    parallel.count_done((task.stop - task.start) % _COUNT_EVERY)
    for holder, records in rows.items():
        store.write_shard(task.directory, holder, task.shard, records)


def _finish(directory: pathlib.Path, settings: Settings, split: str) -> None:
    provenance = {
        "tool": "tools.data.make_scenes",
        "licence": "rendered by this tool",
        "commercial": True,
        "settings": dataclasses.asdict(settings),
        "split": split,
    }
    details = {
        "classes": [{"name": c.name, "synonyms": list(c.names[1:])} for c in CLASSES],
        "held_out": [[CLASSES[class_id].name, *looks] for class_id, *looks in HELD_OUT],
    }
    base, *sidecars = HOLDERS[split]
    store.finish_store(directory, f"scenes_{split}", FIELDS[base], {**provenance, **details})
    for sidecar in sidecars:
        store.finish_sidecar(directory, sidecar, FIELDS[sidecar], provenance)
