# SPDX-License-Identifier: Apache-2.0
"""The same job through Ray, one of two actors killed in the middle of a shard."""

import dataclasses
import os
import pathlib
import time

import pytest

from mtv_jax.core.errors import UserError
from tests.tools.label.stubs import Meaner, Means
from tests.tools.label.test_driver import path, sidecar_bytes  # noqa: F401 - a fixture
from tools.label.jobs import Job
from tools.label.run import label_store

pytest.importorskip("ray", reason="Ray is not installed (pip install ray)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mortal(Means):
    """The first worker that labels a batch dies of it."""

    grave: str = ""

    def load(self, device: str) -> Meaner:
        return Dying(self)


class Dying(Meaner):
    def infer(self, prepared):
        if not os.path.exists(self.settings.grave):
            pathlib.Path(self.settings.grave).write_text(str(os.getpid()))
            os._exit(1)
        return super().infer(prepared)


@pytest.fixture(scope="module")
def engine():
    import ray

    from tools.label.ray_engine import RayEngine

    ray.init("local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
    yield RayEngine(2, gpus=0)
    ray.shutdown()


def test_a_killed_actor_changes_no_bit(path, tmp_path_factory, engine):  # noqa: F811
    grave = tmp_path_factory.mktemp("grave") / "dead"
    undisturbed = tmp_path_factory.mktemp("undisturbed")
    for file in path.iterdir():
        (undisturbed / file.name).write_bytes(file.read_bytes())
    grave.write_text("nobody")
    expert = Mortal(name="means", grave=str(grave))
    label_store(Job(path=undisturbed, expert=expert))
    grave.unlink()
    text = label_store(Job(path=path, expert=expert), engine)
    assert "rows 11: 8 labelled" in text and int(grave.read_text()) != os.getpid()
    assert sidecar_bytes(path) == sidecar_bytes(undisturbed)


class Refusing(Means):
    def load(self, device: str) -> Meaner:
        raise UserError("no weights")


class Stumbling(Means):
    def load(self, device: str) -> Meaner:
        return Stumbler(self)


class Stumbler(Meaner):
    def infer(self, prepared):
        raise UserError("too little memory")


class Deadly(Means):
    def load(self, device: str) -> Meaner:
        os._exit(1)


@pytest.mark.parametrize(
    ("expert", "message"),
    [
        (Refusing, "no weights"),
        (Stumbling, "too little memory"),
        (Deadly, "a worker died 6 times at a shard: .*; what is done is kept"),
    ],
)
def test_what_an_actor_says_is_one_line(path, engine, expert, message):  # noqa: F811
    with pytest.raises(UserError, match=f"^{message}$"):
        label_store(Job(path=path, expert=expert(name="means")), engine)


def test_workers_that_find_no_place_are_waited_for_aloud(path, engine, monkeypatch, capsys):  # noqa: F811
    """One of two has the only CPU until it is done with what it was asked first."""
    from tools.label import ray_engine

    monkeypatch.setattr(ray_engine, "_PATIENCE", 0.5)
    import ray

    @ray.remote(num_cpus=2)
    def occupy() -> None:
        time.sleep(3)

    busy = occupy.remote()
    time.sleep(1)
    assert "8 labelled" in label_store(Job(path=path, expert=Means(name="means")), engine)
    ray.get(busy)
    told = capsys.readouterr().err
    assert "ray: 0 of 2 workers are ready" in told and "a CPU and 0 GPU each" in told


def test_paths_are_those_of_the_driver(path, engine, monkeypatch):  # noqa: F811
    monkeypatch.chdir(path.parent)
    relative = pathlib.Path(path.name)
    assert "8 labelled" in label_store(Job(path=relative, expert=Means(name="means")), engine)


def test_a_cluster_that_is_not_there_is_one_line(path, engine, monkeypatch):  # noqa: F811
    def unreachable(**settings: object) -> None:
        raise ConnectionError("Could not\n find it")

    import ray

    monkeypatch.setattr(ray, "init", unreachable)
    with pytest.raises(UserError, match=r"^Could not find it: set RAY_ADDRESS right"):
        label_store(Job(path=path, expert=Means(name="means")), engine)
