# SPDX-License-Identifier: Apache-2.0
"""The benches measure something on a tiny system."""

import pytest

from mtv_jax.assemble import System
from mtv_jax.core.errors import UserError
from tests.tools.tiny import tiny_config
from tools.bench import loader, timing


@pytest.fixture(scope="module")
def system(world) -> System:
    return System(tiny_config(world))


def test_step_is_timed_and_traced(system, tmp_path):
    timed = timing.time_step(system, steps=3, profile=str(tmp_path / "trace"))
    assert len(timed.seconds) == 3 and min(timed.seconds) <= timed.median_s < timed.compile_s
    assert timed.images_per_s == pytest.approx(16 / timed.median_s)
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))


def test_stages_and_batches_are_timed(system):
    stages = timing.time_stages(system, 0.2)
    assert list(stages) == ["read", "decode", "tokenise"] and min(stages.values()) > 0
    assert timing.time_batches(system, 0.2) > 0


@pytest.mark.parametrize("text", ["a", "-1", ""])
def test_workers_are_numbers(text):
    assert loader._parse_workers(["0", "12"]) == [0, 12]
    with pytest.raises(UserError, match="should be numbers"):
        loader._parse_workers([text])
