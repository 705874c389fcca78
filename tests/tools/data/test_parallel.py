# SPDX-License-Identifier: Apache-2.0
"""Mapping over shards in processes."""

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


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_the_function_come_through(workers):
    with pytest.raises(KeyError):
        list(parallel.map_shards(fail, range(3), workers=workers))


def test_a_dead_worker_is_one_clear_error():
    with pytest.raises(UserError, match="fewer --workers"):
        list(parallel.map_shards(die, range(3), workers=2))


_PARENT = """
import os, sys, time
from tools.data import parallel

def work(number):
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    list(parallel.map_shards(work, range(2), workers=2))
"""


def test_workers_die_with_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    root = os.path.dirname(os.path.dirname(os.path.dirname(parallel.__file__)))
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)
