# SPDX-License-Identifier: Apache-2.0
"""The loop around a step that the test writes."""

import dataclasses
import itertools
import json
import types

import jax
import numpy as np
import pytest

from input_pipeline.fake import fake_batch
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import IMAGE
from mtv_jax.dist.mesh import MeshConfig, make_mesh
from mtv_jax.objectives.base import Alarm
from mtv_jax.objectives.koleo import KoLeo
from mtv_jax.training import loop as loop_module
from mtv_jax.training.loop import Loop
from mtv_jax.training.metrics import mean_of


@dataclasses.dataclass
class Saver:
    """Notes what was saved, and how many lines of metrics were written by then."""

    path: object
    saved: list = dataclasses.field(default_factory=list)

    def save(self, step, state):
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.saved.append((step, [json.loads(x)["step"] for x in lines]))

    def wait(self): ...


def _step(bad=()):
    """Steps whose loss is their number; those in `bad` are not finite."""

    def step(state, frozen, batch):
        number = state.step + 1
        loss = np.float32(np.nan if number in bad else number)
        metrics = {"loss": loss, "vl/loss": loss, "skipped": np.float32(number in bad)}
        return types.SimpleNamespace(step=number), metrics

    return step


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Runs a loop; returns the saver and the lines of metrics."""
    monkeypatch.setattr(loop_module, "_bound", lambda in_flight, newest: None)
    (tmp_path / "logs").mkdir()
    evaluated = []

    def run(*, first=0, step=None, readable=True, **changes):
        batch = fake_batch((IMAGE,), batch_size=4, canvas=8, text_length=4)
        batch["valid"]["image"][:] = readable
        values = {
            "workdir": tmp_path,
            "mesh": make_mesh(MeshConfig(), jax.devices()[:1]),
            "step": step or _step(),
            "frozen": {},
            "put": lambda local: local,
            "total_steps": 10,
            "checkpoint_every": 100,
            "log_every": 4,
            "nonfinite": "skip",
            "max_skips": 2,
            "watchdog_seconds": 0,
            "evaluate": lambda state, number, poll: evaluated.append(number),
            "interference": lambda number, state, frozen, batch: {},
            "objectives": (),
            **changes,
        }
        saver = Saver(tmp_path / "metrics.jsonl")
        state = types.SimpleNamespace(step=first)
        assert Loop(**values).run(state, itertools.repeat(batch), saver)
        return saver, [json.loads(x) for x in saver.path.read_text().splitlines()]

    run.evaluated = evaluated
    return run


def test_lines_are_means_over_their_interval(train):
    _, lines = train()
    assert [(x["step"], x["loss"]) for x in lines] == [(1, 1), (4, 3), (8, 6.5), (10, 9.5)]
    assert train.evaluated == list(range(1, 11))


def test_metrics_are_never_behind_a_checkpoint_and_resuming_gives_the_same_lines(train):
    saver, straight = train(checkpoint_every=6)
    assert saver.saved == [(6, [1, 4, 6]), (10, [1, 4, 6, 8, 10])]
    rates = ("images_per_s", "data_wait")
    _, resumed = train(first=6, checkpoint_every=6)
    for line in (*straight, *resumed):
        for rate in rates:
            del line[rate]
    assert resumed == [*straight[:3], *straight[3:]] and [x["step"] for x in resumed][-2:] == [
        8,
        10,
    ]
    assert train.evaluated[10] == 6, "the evaluation after the checkpoint comes first"


def test_a_skipped_step_is_named_and_leaves_the_mean(train, capsys):
    _, lines = train(step=_step(bad=(2, 3)))
    assert lines[1]["loss"] == 4.0 and lines[1]["skipped"] == pytest.approx(2 / 3)
    assert "step 2: vl not finite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "count"), [({"nonfinite": "stop"}, "1 in a row"), ({"max_skips": 2}, "3 in a row")]
)
def test_steps_that_are_not_finite_stop_by_policy(train, changes, count):
    with pytest.raises(UserError, match=count):
        train(step=_step(bad=range(2, 9)), **changes)


def test_a_store_of_which_nothing_can_be_read_stops_the_run(train):
    with pytest.raises(UserError, match=r"last 3 batches.*tools\.data\.verify"):
        train(readable=False)


@pytest.mark.parametrize(
    ("first", "window", "expected"),
    [
        (0, range(2, 5), ["start", "stop"]),
        (0, range(2, 50), ["start", "stop"]),
        (3, range(2, 5), []),
    ],
)
def test_a_trace_begun_is_ended_and_only_then(train, monkeypatch, first, window, expected):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda path: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    train(first=first, profile=window)
    assert calls == expected


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alarmed(KoLeo):
    """Its alarm rings from the fourth step on."""

    def alarms(self):
        return (Alarm(above={"loss": 3.0}, problem="high", remedy="lower"),)


def test_alarms_of_a_resumed_run_are_those_of_a_straight_one(train, tmp_path, capsys):
    """Steps 4, 5 and 6 ring; the run is resumed from step 5."""
    settings = {"objectives": (Alarmed(name="vl"),), "log_every": 1, "checkpoint_every": 5}
    train(**settings)
    straight = (tmp_path / "alarms.jsonl").read_text()
    assert [json.loads(x)["step"] for x in straight.splitlines()] == [6]
    told = capsys.readouterr().err
    assert "step 6: alarm: vl: high (loss 6). Try: lower" in told and "1 alarm rang" in told
    train(first=5, **settings)
    assert (tmp_path / "alarms.jsonl").read_text() == straight


def test_means_of_a_metric_that_not_every_step_has():
    rows = [{"loss": loss, "skipped": 0.0} for loss in (1.0, 2.0, 6.0)]
    rows[1]["rare"] = 5.0
    assert mean_of(rows) == {"loss": 3.0, "rare": 5.0, "skipped": 0.0}


def test_means_of_nothing_but_skipped_steps():
    rows = [{"loss": np.float32("nan"), "skipped": np.float32(1)}] * 2
    assert mean_of(rows)["skipped"] == 1.0 and np.isnan(mean_of(rows)["loss"])
