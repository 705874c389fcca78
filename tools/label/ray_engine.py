# SPDX-License-Identifier: Apache-2.0
"""Labelling on many machines through Ray (`pip install ray`): an actor for each GPU.

Ray schedules, restarts actors that die with their machine, and gives their shard to them again:
a shard is written whole or not at all, so doing one twice does no harm. The store has to be on a
file system that all machines see. `RAY_ADDRESS` names a cluster; without it Ray starts one here.
"""

from collections.abc import Iterator, Sequence
from types import ModuleType

from mtv_jax.core.errors import UserError
from tools.label import driver
from tools.label.base import Labeller
from tools.label.driver import Job
from tools.label.run import Engine

_RETRIES = 5  # of a shard, and restarts of an actor in a row


class RayEngine(Engine):
    """Actors.

    Args:
        workers: how many.
        gpus: of each; 0 on CPUs.
    """

    def __init__(self, workers: int, gpus: float):
        self.devices, self._gpus, self._ray = workers, gpus, _ray()

    def load(self, job: Job) -> str:
        """Starts the actors; all have the same weights."""
        if not self._ray.is_initialized():
            self._ray.init(log_to_driver=False)
        remote = self._ray.remote(
            num_gpus=self._gpus,
            num_cpus=1,
            max_restarts=_RETRIES,
            max_task_retries=_RETRIES,
        )(_Worker)
        self._actors = [remote.remote(job) for _ in range(self.devices)]
        digests = set(self._ray.get([actor.digest.remote() for actor in self._actors]))
        if len(digests) > 1:
            raise UserError(f"the machines hold different weights of {job.expert.name}")
        return digests.pop()

    def label(self, job: Job, shards: Sequence[int]) -> Iterator[int]:
        """Any actor takes the next shard."""
        del job
        pool = self._ray.util.ActorPool(self._actors)
        yield from pool.map_unordered(lambda actor, shard: actor.label.remote(shard), shards)


class _Worker:
    """An expert in a process of its own."""

    def __init__(self, job: Job):
        self._job = job
        self._labeller: Labeller = job.expert.load(job.device)

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
