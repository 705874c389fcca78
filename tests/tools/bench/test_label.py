# SPDX-License-Identifier: Apache-2.0
"""The labelling bench without PyTorch: made inputs, the driver, and its tables."""

from unittest import mock

import numpy as np
import pytest

from input_pipeline import decode
from mtv_jax.core.errors import UserError
from tools.bench import label, label_driver, label_host, label_inputs
from tools.bench.label_flops import Work
from tools.label.boxes import BoxLimits, Detections, keep
from tools.label.experts.depth_anything_v2 import mirror_size


def test_made_images_weigh_what_photographs_do(tmp_path):
    opened = label_inputs.write_store(tmp_path, 3)
    encoded = [opened.read(0, row, ("image",))["image"][0] for row in range(3)]
    assert len(set(encoded)) == 3
    for data in encoded:
        assert 40_000 < len(data) < 100_000
        assert decode.decode_image(data).shape == (480, 640, 3)
    assert len(label_inputs.sample(opened).columns["ram_tags"]) == 32


def test_made_boxes_fill_an_image():
    found = label_inputs.made_boxes(0)
    scores = 1 / (1 + np.exp(-found.logits.max(axis=1)))
    tags = found.logits.argmax(axis=1)
    corners = np.hstack([found.boxes[:, :2], found.boxes[:, :2] + found.boxes[:, 2:]])
    detections = Detections(
        boxes=corners,
        scores=scores,
        phrases=[label_inputs.TAGS[tag] for tag in tags],
        mentioned=np.zeros(len(tags), bool),
    )
    kept = keep(detections, BoxLimits())
    assert len(kept.rows) == 20 and kept.dropped["a better box of the same phrase"] > 50


def test_the_driver_is_timed_with_and_without_images(tmp_path):
    label_inputs.write_store(tmp_path, 24)
    rates = label_driver.time_driver(tmp_path, threads=(1, 2), repeats=2)
    kinds = [(rate.sees, rate.threads) for rate in rates]
    assert kinds == [(False, 1), (False, 2), (True, 1), (True, 2)]
    assert rates[0].rows_per_s > rates[2].rows_per_s > 0, "decoding costs something"
    assert not list(tmp_path.glob("*nothing*")), "nothing is left"


def test_rates_follow_from_operations():
    work = Work(name="w", flops=int(989e12 / 100), goal=36_000)
    assert work.hourly(0.5) == pytest.approx(180_000)
    assert work.utilisation(work.goal) == pytest.approx(0.1)
    assert label._allowed(work) == ["w", "9,890", "72,000", "144,000", "", "10.0%"]


def test_the_mirror_image_is_made_of_whole_patches():
    assert mirror_size((518, 686), 196) == (196, 266) and mirror_size((518, 518), 196) == (196, 196)


def test_steps_are_divided_and_added(monkeypatch):
    monkeypatch.setattr(label_host, "processor_seconds", lambda call, seconds: 8.0)
    monkeypatch.setattr(label_host.hub, "packages", mock.MagicMock())
    steps = label_host.Steps(
        expert=label_driver.Blind(name="b"), prepare=int, stack=int, finish=int
    )

    class Opened:
        def read(self, *at):
            return {"image": [b""]}

    measured = list(label_host.time_steps(Opened(), [steps], 0.1))
    assert {step.name: step.seconds for step in measured} == {
        "read": 8.0,
        "decode": 8.0,
        "prepare": 8.0,
        "stack a batch": 1.0,
        "finish": 8.0,
    }
    assert label_host.spent(measured, "b", label_host.ON_THREADS) == 32.0
    assert label_host.spent(measured, "b", label_host.ON_THE_DEVICES) == 1.0
    assert label_host.spent(measured, "another", label_host.ON_THREADS) == 16.0


def test_processor_time_is_not_waiting():
    import time

    assert label_host.processor_seconds(lambda: time.sleep(0.02), 0.05) < 0.01


def test_tables_are_markdown():
    assert label.table(("a", "b"), [("1", "2")]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]


def test_a_part_that_is_not_there_is_named():
    assert label._chosen(["driver", "flops"]) == [label._driver, label._flops]
    with pytest.raises(UserError, match=r"no part 'hots'.*host"):
        label._chosen(["hots"])
