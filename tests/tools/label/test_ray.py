# SPDX-License-Identifier: Apache-2.0
"""The same job through Ray, one of two actors killed in the middle of a shard."""

import dataclasses
import os
import pathlib

import pytest

from tests.tools.label.stubs import Meaner, Means
from tests.tools.label.test_driver import path, sidecar_bytes  # noqa: F401 - a fixture
from tools.label.driver import Job
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


def test_a_killed_actor_changes_no_bit(path, tmp_path_factory):  # noqa: F811
    from tools.label.ray_engine import RayEngine

    grave = tmp_path_factory.mktemp("grave") / "dead"
    undisturbed = tmp_path_factory.mktemp("undisturbed")
    for file in path.iterdir():
        (undisturbed / file.name).write_bytes(file.read_bytes())
    grave.write_text("nobody")
    expert = Mortal(name="means", grave=str(grave))
    label_store(Job(path=undisturbed, expert=expert))
    grave.unlink()
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        text = label_store(Job(path=path, expert=expert), RayEngine(2, gpus=0))
    finally:
        ray.shutdown()
    assert "rows 11: 8 labelled" in text and int(grave.read_text()) != os.getpid()
    assert sidecar_bytes(path) == sidecar_bytes(undisturbed)
