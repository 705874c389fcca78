# SPDX-License-Identifier: Apache-2.0
"""The benches measure something on a tiny system."""

import jax
import pytest

from mtv_jax.assemble import System
from mtv_jax.core.errors import UserError
from tests.tools.tiny import tiny_config
from tools.bench import loader, microbatches, streaming, timing


@pytest.fixture(scope="module")
def system(world) -> System:
    return System(tiny_config(world))


def test_step_is_timed_and_traced(system, tmp_path):
    timed = timing.time_step(system, steps=3, profile=str(tmp_path / "trace"))
    assert len(timed.seconds) == 3 and min(timed.seconds) <= timed.median_s < timed.compile_s
    assert timed.images_per_s == pytest.approx(16 / timed.median_s)
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))


def test_interference_is_timed(system):
    timed = timing.time_interference(system, calls=2)
    assert len(timed.seconds) == 2 and timed.compile_s > max(timed.median_s, 0.1)


def test_stages_and_batches_are_timed(system):
    stages = timing.time_stages(system, 0.2)
    assert list(stages) == ["read", "decode", "tokenise"] and min(stages.values()) > 0
    assert timing.time_batches(system, 0.2) > 0


@pytest.mark.parametrize("text", ["a", "-1", ""])
def test_workers_are_numbers(text):
    assert loader._parse_workers(["0", "12"]) == [0, 12]
    with pytest.raises(UserError, match="should be numbers"):
        loader._parse_workers([text])


@pytest.fixture(scope="module")
def systems(world) -> list[System]:
    """One device, 1, 2 and 8 micro-batches."""
    config = tiny_config(world)
    config["model"]["scan_unroll"] = 1  # compiles faster
    one = jax.devices()[:1]
    return [System({**config, "micro_batches": n}, devices=one) for n in (1, 2, 8)]


def test_micro_batches_save_memory_and_change_nothing(systems):
    rows = list(microbatches.measure(systems))
    assert [row.micro_batches for row in rows] == [1, 2, 8]
    temporaries = [row.plan.temporaries for row in rows]
    assert temporaries == sorted(temporaries, reverse=True) and len(set(temporaries)) == 3
    for row in rows:
        assert row.loss == pytest.approx(rows[0].loss, rel=1e-5) and row.difference < 1e-5
    assert rows[0].difference == 0 < rows[2].difference, "something was compared"


def test_compiling_alone_computes_nothing(systems, monkeypatch):
    monkeypatch.setattr(System, "init_state", lambda self: pytest.fail("a state was made"))
    (row,) = microbatches.measure(systems[2:], compile_only=True)
    assert row.cells()[0] == "8" and row.cells()[3:] == ("-", "-")
    assert row.cells()[1] == f"{row.plan.temporaries / 2**20:,.1f} MiB"


@pytest.mark.parametrize("text", ["a", "0", ""])
def test_micro_batches_are_numbers(text):
    assert microbatches.parse_counts(["1", "8"]) == [1, 8]
    with pytest.raises(UserError, match="should be numbers, such as 1,2,8"):
        microbatches.parse_counts([text])


def test_prototypes_are_tried_in_blocks_and_at_once(world):
    """Each number with the config's blocks first; what grows with it anyway is taken off."""
    config, seen = tiny_config(world, "vl+ssl"), []

    def compiled(config):
        head = config["objectives"]["masked_pred"]
        seen.append((head["prototypes"], head["block_mib"]))
        return 10_000_000

    rows = list(streaming.measure(config, [64, 128], compiled))
    assert [count for count, _ in seen] == [64, 64, 128, 128]
    assert [block == 64 for _, block in seen] == [True, False, True, False]
    # Two heads of 64 wide prototypes with gains, gradients in float32.
    assert [10_000_000 - row.beyond for row in rows[::2]] == [2 * 64 * 65 * 4, 2 * 128 * 65 * 4]
    with pytest.raises(UserError, match="add ssl"):
        next(streaming.measure(tiny_config(world), [64], compiled))
