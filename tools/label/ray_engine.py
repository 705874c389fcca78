# SPDX-License-Identifier: Apache-2.0
"""Labelling on many machines through Ray (`pip install ray`): an actor for each GPU.

Ray schedules, restarts actors that die with their machine, and gives their shard to them again:
a shard is written whole or not at all, so doing one twice does no harm. Store and weights have to
be on a file system that all machines see. `RAY_ADDRESS` names a cluster; without it Ray starts one
here.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from mtv_jax.core.errors import UserError
from tools.label import driver
from tools.label.base import Labeller
from tools.label.jobs import Job
from tools.label.run import Engine

_RETRIES = 5  # of a shard, where its actor dies; actors are started again without end
_PATIENCE = 30  # seconds, before it is told what is waited for


class RayEngine(Engine):
    """Actors.

    Args:
        workers: how many.
        gpus: of each; 0 on CPUs.
    """

    def __init__(self, workers: int, gpus: float):
        self.devices, self._gpus, self._ray = workers, gpus, _ray()
        self._actors: list[Any] = []

    def load(self, job: Job) -> str:
        """Starts the actors; all have the same weights."""
        self._connect()
        self._dismiss()
        remote = self._ray.remote(
            num_gpus=self._gpus,
            num_cpus=1,
            max_restarts=-1,
            max_task_retries=_RETRIES,
        )(_Worker)
        self._actors = [remote.remote(job, os.getcwd()) for _ in range(self.devices)]
        digests = set(self._answers([actor.digest.remote() for actor in self._actors]))
        if len(digests) > 1:
            raise UserError(f"the machines hold different weights of {job.expert.name}")
        return digests.pop()

    def _connect(self) -> None:
        try:
            self._ray.init(log_to_driver=False, ignore_reinit_error=True)
        except ConnectionError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{reason}: set RAY_ADDRESS right, or unset it") from error

    def label(self, job: Job, shards: Sequence[int]) -> Iterator[int]:
        """Any actor takes the next shard."""
        del job
        pool = self._ray.util.ActorPool(self._actors)
        with self._told_in_a_line():
            yield from pool.map_unordered(lambda actor, shard: actor.label.remote(shard), shards)
        self._dismiss()

    def _dismiss(self) -> None:
        """Gives the devices back."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []

    def _answers(self, asked: Sequence[Any]) -> list[Any]:
        """What all actors say; while some have no place yet, that is told."""
        here, missing = [], list(asked)
        while missing:
            ready, missing = self._ray.wait(missing, num_returns=len(missing), timeout=_PATIENCE)
            with self._told_in_a_line():
                here += self._ray.get(ready)
            if missing:
                print(
                    f"ray: {len(here)} of {len(asked)} workers are ready; the others load, or wait "
                    f"for a CPU and {self._gpus} GPU each (fewer: --workers)",
                    file=sys.stderr,
                    flush=True,
                )
        return here

    @contextlib.contextmanager
    def _told_in_a_line(self) -> Iterator[None]:
        """What went wrong in an actor, as it would be told without Ray."""
        errors = self._ray.exceptions
        try:
            yield
        except errors.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from error
            raise
        except errors.RayActorError as error:
            raise UserError(
                f"a worker died {_RETRIES + 1} times at a shard: look at Ray's logs; what is done "
                "is kept"
            ) from error


class _Worker:
    """An expert in a process of its own, in the folder of the driver where there is one."""

    def __init__(self, job: Job, folder: str):
        self._job = job
        if os.path.isdir(folder):
            os.chdir(folder)

    @functools.cached_property
    def _labeller(self) -> Labeller:
        return self._job.expert.load(self._job.device)

    def digest(self) -> str:
        """Of the weights."""
        return self._labeller.digest

    def label(self, shard: int) -> int:
        """Rows that were done."""
        return sum(driver.label_shard(self._job, self._labeller, shard))


def _ray() -> ModuleType:
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise UserError(f"--engine ray needs the package ray ({error}): pip install ray") from error
    return ray
