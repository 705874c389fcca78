# SPDX-License-Identifier: Apache-2.0
"""One function over many shards in worker processes, counting what is done across them."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import TypeVar

from mtv_jax.core.errors import UserError

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")
_POLL_SECONDS = 0.5


def available_cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_done(number: int) -> None:
    """Called by a mapped function: so many more samples are done."""
    _count(number)


def map_shards(
    function: Callable[[_Task], _Result],
    tasks: Sequence[_Task],
    *,
    workers: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Iterator[_Result]:
    """Results of `function` over `tasks`, in the order of the tasks.

    Args:
        function: a module-level function; the workers import it.
        tasks: one a shard, picklable.
        workers: number of processes; 1 works in this one. An error or Ctrl-C ends them at once.
        on_progress: told now and then how many samples are done (see `count_done`).

    Raises:
        UserError: a worker died.
    """
    if workers == 1 or len(tasks) <= 1:
        return _map_here(function, tasks, on_progress)
    return _map_in_pool(function, tasks, min(workers, len(tasks)), on_progress)


def _map_here(
    function: Callable[[_Task], _Result],
    tasks: Sequence[_Task],
    on_progress: Callable[[int], None],
) -> Iterator[_Result]:
    done = 0

    def count(number: int) -> None:
        nonlocal done
        done += number
        on_progress(done)

    _count_with(count)
    yield from map(function, tasks)


def _map_in_pool(
    function: Callable[[_Task], _Result],
    tasks: Sequence[_Task],
    workers: int,
    on_progress: Callable[[int], None],
) -> Iterator[_Result]:
    context = multiprocessing.get_context("spawn")
    done = context.Value("q", 0)
    lifeline, held = context.Pipe(duplex=False)
    with held, ProcessPoolExecutor(workers, context, _start_worker, (done, lifeline)) as pool:
        try:
            with _interrupts_held_back():  # the workers inherit this: Ctrl-C is for the parent
                futures = [pool.submit(function, task) for task in tasks]
            for future in futures:
                while not concurrent.futures.wait([future], _POLL_SECONDS).done:
                    on_progress(done.value)
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died, most likely for want of memory: run the same command "
                "again with fewer --workers"
            ) from error
        except BaseException:
            held.close()  # nobody waits for the shards in work
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore(number: int) -> None:
    pass


_count: Callable[[int], None] = _ignore


def _count_with(count: Callable[[int], None]) -> None:
    global _count
    _count = count


def _start_worker(done: "Synchronized[int]", lifeline: Connection) -> None:
    def count(number: int) -> None:
        with done.get_lock():
            done.value += number

    _count_with(count)
    threading.Thread(target=_die_with, args=(lifeline,), daemon=True).start()


def _die_with(lifeline: Connection) -> None:
    """Waits for the end of a pipe that nobody writes to: its other end closed, or its holder died.

    A killed parent cannot stop its workers, and they would wait for it for ever.
    """
    lifeline.poll(None)
    os._exit(1)
