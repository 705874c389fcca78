# SPDX-License-Identifier: Apache-2.0
"""Processes of a run: finding each other, noticing a preemption, not hanging in silence."""

import faulthandler
import os
import signal
import sys
from types import FrameType

import jax
from jax.experimental import multihost_utils

from mtv_jax.core.errors import UserError


def initialize() -> str:
    """Joins the processes of the job; returns in words how they were found.

    Tried in order: explicit JAX_COORDINATOR_ADDRESS, a Cloud TPU pod, Slurm, Open MPI; otherwise
    one process.
    """
    env = os.environ
    if address := env.get("JAX_COORDINATOR_ADDRESS"):
        missing = [k for k in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID") if k not in env]
        if missing:
            raise UserError(f"JAX_COORDINATOR_ADDRESS is set but {missing[0]} is not; set both")
        jax.distributed.initialize(
            address, int(env["JAX_NUM_PROCESSES"]), int(env["JAX_PROCESS_ID"])
        )
        return _found("JAX_COORDINATOR_ADDRESS")
    if len(env.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1:
        jax.distributed.initialize()
        return _found("Cloud TPU")
    for variable, source in (("SLURM_NTASKS", "Slurm"), ("OMPI_COMM_WORLD_SIZE", "Open MPI")):
        if int(env.get(variable, "1")) > 1:
            jax.distributed.initialize()
            return _found(source)
    return "one process"


def _found(source: str) -> str:
    return f"{jax.process_count()} processes by {source}, this is {jax.process_index()}"


class Preemption:
    """Whether the job was told to stop (SIGTERM, or Ctrl-C once): save, then exit cleanly.

    Of several processes JAX's own handler of SIGTERM tells the others, and must stay in place.
    """

    def __init__(self) -> None:
        self._asked = False
        self._alone = jax.process_count() == 1
        signal.signal(signal.SIGINT, self._note)
        if self._alone:
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
        name = signal.Signals(number).name
        print(f"{name}: saving after this step, then stopping", file=sys.stderr, flush=True)
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)

    def reached(self, step: int) -> bool:
        """True at the step at which every process agrees to stop."""
        if self._alone:
            return self._asked
        return multihost_utils.reached_preemption_sync_point(step)


class Watchdog:
    """Dumps every thread's stack and ends the process when nothing happens for too long."""

    def __init__(self, seconds: int):
        self._seconds = seconds

    def beat(self) -> None:
        """Something happened; the clock starts again."""
        if self._seconds:
            faulthandler.dump_traceback_later(self._seconds, exit=True)

    def stop(self) -> None:
        """No more watching."""
        faulthandler.cancel_dump_traceback_later()
