# SPDX-License-Identifier: Apache-2.0
"""The progress line."""

from mtv_jax.core import progress


def test_rate_and_time_left_do_not_count_earlier_work(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    line = progress.Progress("ingest", 10_000)
    line.skip(4_000)
    now[0] += 5
    line.show(4_500)
    assert capsys.readouterr().err == ""  # a log gets a line in ten seconds
    now[0] += 5
    line.show(5_000)
    printed = capsys.readouterr().err.rstrip()
    assert printed == "ingest: 5,000/10,000 samples (50 %), 100/s, 0:10 spent, 0:50 left"
    now[0] += 3600
    line.finish(10_000)
    assert "10,000/10,000 samples (100 %)" in capsys.readouterr().err


def test_nothing_done_yet_has_no_rate(monkeypatch, capsys):
    line = progress.Progress("survey", 0, unit="shards")
    line.finish(0)
    assert "0/0 shards (0 %), 0/s" in capsys.readouterr().err
    assert progress._clock(float("inf")) == "?"
    assert progress._clock(3725) == "1:02:05"


def test_nothing_left_takes_no_time(capsys):
    line = progress.Progress("work", 100)
    line.skip(100)
    line.finish(100)
    assert "100/100 samples (100 %), 0/s, 0:00 spent, 0:00 left" in capsys.readouterr().err
