# SPDX-License-Identifier: Apache-2.0
"""Mapping over shards in processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from mtv_jax.core.errors import UserError
from tools.data import parallel


def square(number):
    """Slower for the first ones, so that results come out of order."""
    time.sleep(0.2 if number == 0 else 0)
    parallel.count_done(10)
    return number * number


def fail(number):
    """An error of the mapped function."""
    raise KeyError(number)


def fail_or_wait(number):
    """An error beside long work."""
    if number == 0:
        raise KeyError(number)
    time.sleep(30)


def die(number):
    """A worker that the system kills."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_in_order_and_counted(workers):
    seen = []
    results = parallel.map_shards(square, range(5), workers=workers, on_progress=seen.append)
    assert list(results) == [0, 1, 4, 9, 16]
    assert seen == sorted(seen)
    assert workers > 1 or seen == [10, 20, 30, 40, 50]


def test_nothing_to_do_is_done():
    assert list(parallel.map_shards(square, [], workers=2)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_the_function_come_through(workers):
    with pytest.raises(KeyError):
        list(parallel.map_shards(fail, range(3), workers=workers))


def test_a_dead_worker_is_one_clear_error():
    with pytest.raises(UserError, match="fewer --workers"):
        list(parallel.map_shards(die, range(3), workers=2))


_PARENT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
import os, sys, time
from mtv_jax.core.errors import report_user_errors
from tools.data import parallel

def work(number):
    print(os.getpid(), flush=True)
    time.sleep(60)

@report_user_errors
def main():
    print("starts", flush=True)
    list(parallel.map_shards(work, range(3), workers=2))

if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.fixture
def parent(tmp_path):
    """A process about to work in two others, in a group of its own as a terminal makes them."""
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    root = os.path.dirname(os.path.dirname(os.path.dirname(parallel.__file__)))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "starts\n"
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _workers(parent):
    return [int(parent.stdout.readline()) for _ in range(2)]


def _assert_gone(workers):
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)


def test_workers_die_with_a_killed_parent(parent):
    workers = _workers(parent)
    parent.kill()
    parent.wait()
    _assert_gone(workers)


@pytest.mark.parametrize("delay", [0, 0.1, None])
def test_interrupt_stops_at_once_and_quietly(parent, delay):
    """While the workers start, which would print tracebacks, and while they work."""
    workers = _workers(parent) if delay is None else []
    time.sleep(delay or 0)
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.wait(timeout=10) == 130
    assert parent.stderr.read() == "stopped\n"
    _assert_gone(workers)


def test_workers_leave_interrupts_to_the_parent(parent):
    for worker in _workers(parent):
        os.kill(worker, signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        parent.wait(timeout=1)


def test_an_error_stops_the_others():
    start = time.monotonic()
    with pytest.raises(KeyError):
        list(parallel.map_shards(fail_or_wait, range(2), workers=2))
    assert time.monotonic() - start < 20
