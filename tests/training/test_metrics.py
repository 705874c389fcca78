# SPDX-License-Identifier: Apache-2.0
"""The line that a person watches."""

from mtv_jax.training import metrics
from mtv_jax.training.metrics import ProgressLine


def test_the_first_step_which_compiles_does_not_count_for_the_eta(monkeypatch, capsys):
    clock = iter([100.0, 110.0, 120.0])
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: next(clock))
    line = ProgressLine(101)
    values = {"images_per_s": 5.0, "data_wait": 0.5, "loss": 3.0, "vl/loss": 2.0, "lr": 1.0}
    for step in (1, 51, 101):
        line.show(step, values)
    output = capsys.readouterr()
    first, middle, last = output.out.splitlines()
    assert "eta unknown" in first and "eta 10s" in middle and "eta 0s" in last
    assert middle.startswith("step 51/101 (50 %)") and middle.endswith("loss 3  vl/loss 2")
    advice = output.err.splitlines()
    assert len(advice) == 2, "not of the first step, whose batch nobody could have ready"
    assert all("--config.input.workers" in line for line in advice)
