# SPDX-License-Identifier: Apache-2.0
"""The sentinel on numbers that the test writes, and on collapses of real objectives."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.objectives.base import Alarm
from mtv_jax.objectives.koleo import KoLeo
from mtv_jax.training.model import Weights
from mtv_jax.training.sentinel import IN_A_ROW, Sentinel
from tests.arch.systems import FROZEN, OBJECTIVES, tiny_batch, tiny_model, tiny_params

NAMES = ("self_distill", "masked_pred", "koleo")
LATE = 50  # of a hundred steps: past the warm-up in which an odd metric is normal
HOT = Alarm(above={"heat": 1.0}, below={"wind": 2.0}, after=0.1, problem="burns", remedy="water")


class Alarmed(KoLeo):
    """Declares one alarm."""

    def alarms(self):
        return (HOT,)


def _sentinel(workdir, first_step=0, objectives=None):
    objectives = objectives or (Alarmed(name="oven"),)
    return Sentinel(workdir, objectives, total_steps=100, first_step=first_step)


def _line(hot):
    return {"loss": 0.0, "oven/heat": 3.14159 if hot else 0.5, "oven/wind": 0.001}


def _rows(workdir):
    path = workdir / "alarms.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _steps(workdir):
    return [row["step"] for row in _rows(workdir)]


def test_an_alarm_is_told_in_words_and_in_a_line(tmp_path, capsys):
    sentinel = _sentinel(tmp_path)
    for step in (20, 30, 40, 50):
        sentinel.check(step, _line(hot=True))
    expected = "step 40: alarm: oven: burns (heat 3.142, wind 0.001). Try: water\n"
    assert capsys.readouterr().err == expected
    assert _rows(tmp_path) == [
        {
            "step": 40,
            "objective": "oven",
            "problem": "burns",
            "remedy": "water",
            "metrics": {"heat": 3.14159, "wind": 0.001},
        }
    ]
    sentinel.close()
    assert capsys.readouterr().err == f"1 alarm rang, see {tmp_path / 'alarms.jsonl'}\n"


@pytest.mark.parametrize(
    ("hot", "steps"),
    [
        ("xx.xx.xx.xx.", []),  # never three in a row
        ("xxxxxxxxxxxx", [13]),  # once
        ("xxx..xxxx.xx", [13]),  # quiet, but never for as long
        ("xxx...xxx...", [13, 19]),
    ],
)
def test_what_counts_is_three_in_a_row(tmp_path, capsys, hot, steps):
    assert IN_A_ROW == 3
    sentinel = _sentinel(tmp_path)
    for step, sign in enumerate(hot, start=11):
        sentinel.check(step, _line(hot=sign == "x"))
    assert _steps(tmp_path) == steps
    capsys.readouterr()
    sentinel.close()
    assert f"{len(steps)} alarm" in capsys.readouterr().err if steps else not _rows(tmp_path)


def test_what_is_early_not_finite_or_of_another_objective_does_not_count(tmp_path):
    sentinel = _sentinel(tmp_path)
    for step in range(1, 10):
        sentinel.check(step, _line(hot=True))
    for step in range(10, 20):
        sentinel.check(step, {**_line(hot=True), "oven/heat": float("nan")})
    for step in range(20, 30):
        sentinel.check(step, {"stove/heat": 9.0, "stove/wind": 0.0, "oven/wind": 0.0})
    assert not _rows(tmp_path)


@pytest.mark.parametrize("killed_at", [21, 22, 23, 24, 27])
def test_a_killed_run_reports_what_a_straight_one_does(tmp_path, killed_at, capsys):
    """Steps 20 to 39; the run is killed three steps after its checkpoint.

    Where it is not hot the heat is no number, which the file of metrics holds as null.
    """
    hot = {step: step not in (25, 26, 27, 33) for step in range(20, 40)}

    def drive(workdir, steps, first):
        metrics = workdir / "metrics.jsonl"
        kept = metrics.read_text().splitlines()[: first - 19] if first else []
        metrics.write_text("".join(f"{line}\n" for line in kept))
        sentinel = _sentinel(workdir, first)
        for step in steps:
            heat = {} if hot[step] else {"oven/heat": None}
            with metrics.open("a") as file:
                file.write(json.dumps({"step": step, **_line(hot=True), **heat}) + "\n")
            sentinel.check(step, {**_line(hot=True), **dict.fromkeys(heat, math.nan)})
        return sentinel

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    killed.mkdir()
    drive(straight, range(20, 40), 0)
    drive(killed, range(20, killed_at + 4), 0)
    resumed = drive(killed, range(killed_at + 1, 40), killed_at)
    assert _steps(straight) == [22, 30]
    assert (killed / "alarms.jsonl").read_text() == (straight / "alarms.jsonl").read_text()
    capsys.readouterr()
    resumed.close()
    assert "2 alarms rang" in capsys.readouterr().err, "those before the kill count"


@functools.cache
def _losses():
    model = tiny_model(NAMES)

    def run(params, slots, batch):
        weights = Weights(params=params, ema=params, frozen=FROZEN)
        return model.losses(weights, slots, batch, jnp.asarray(LATE))

    return jax.jit(run)


def _ring(workdir, params, batch):
    """What the sentinel says of a run whose every step has these losses."""
    model = tiny_model(NAMES)
    outs = _losses()(params, model.init_slots(), batch)
    values = {f"{n}/{key}": float(v) for n, out in outs.items() for key, v in out.metrics.items()}
    sentinel = _sentinel(workdir, objectives=model.objectives)
    for step in range(LATE, LATE + IN_A_ROW):
        sentinel.check(step, values)
    return [(row["objective"], row["problem"]) for row in _rows(workdir)]


def _scaled_gains(factor):
    """Student and teacher are the same here, so both heads of each objective are meant."""

    def scale(path, leaf):
        return leaf * factor if jax.tree_util.keystr(path).endswith("['gains']") else leaf

    return jax.tree_util.tree_map_with_path(scale, tiny_params(NAMES))


def test_health_rings_nothing(tmp_path):
    assert _ring(tmp_path, tiny_params(NAMES), tiny_batch(tiny_model(NAMES))) == []


@pytest.mark.parametrize(("factor", "words"), [(0.0, "uniform collapse"), (1e4, "one-hot")])
def test_collapsed_prototypes_ring(tmp_path, factor, words):
    rung = _ring(tmp_path, _scaled_gains(factor), tiny_batch(tiny_model(NAMES)))
    assert [name for name, _ in rung] == ["self_distill", "masked_pred"]
    assert all(words in problem for _, problem in rung)


def test_equal_vectors_ring(tmp_path):
    batch = tiny_batch(tiny_model(NAMES))
    batch["image"] = np.full_like(batch["image"], 100)
    rung = [
        problem for name, problem in _ring(tmp_path, tiny_params(NAMES), batch) if name == "koleo"
    ]
    assert len(rung) == 2 and "nearly equal" in rung[0] and "dimensional collapse" in rung[1]


def test_alarms_look_at_metrics_that_are_there():
    """A misspelt metric would never ring."""
    names = ("sigmoid_vl", "depth", "grounding", *NAMES)
    model = tiny_model(names)
    params = tiny_params(names)
    weights = Weights(params=params, ema=params, frozen=FROZEN)
    outs = jax.eval_shape(
        lambda batch: model.losses(weights, model.init_slots(), batch, jnp.asarray(LATE)),
        tiny_batch(model),
    )
    declared = {name: OBJECTIVES[name].alarms() for name in names}
    for name, alarms in declared.items():
        for alarm in alarms:
            assert {*alarm.above, *alarm.below} <= outs[name].metrics.keys()
            assert alarm.above or alarm.below, "rings at all times"
            assert not alarm.problem.endswith(".") and not alarm.remedy.endswith(".")
    assert sum(map(bool, declared.values())) == len(names) - 1, "all but depth declare alarms"


def test_a_scale_that_runs_away_rings(tmp_path):
    sentinel = _sentinel(tmp_path, objectives=(OBJECTIVES["sigmoid_vl"],))
    for scale, step in ((99.0, 1), (99.0, 2), (99.0, 3), (101.0, 4), (101.0, 5), (101.0, 6)):
        sentinel.check(step, {"sigmoid_vl/logit_scale": scale})
    assert [(r["step"], "run away" in r["problem"]) for r in _rows(tmp_path)] == [(6, True)]
