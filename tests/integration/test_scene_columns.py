# SPDX-License-Identifier: Apache-2.0
"""Every column in miniature: `configs/eval/scenes.py` on a few made scenes."""

import math

import jax
import pytest

from configs.eval import scenes
from mtv_jax.assemble import System
from mtv_jax.core.config import plain
from mtv_jax.evaluators.base import EvalContext
from mtv_jax.evaluators.suite import run_suite
from tests.tools.tiny import tiny_config
from tools.data import make_scenes

TEST = 21  # divides over neither 8 devices nor batches of 16
COLUMNS = {
    "zeroshot": "top1",
    "knn": "top1_k20",
    "retrieval": "i2t_r1",
    "segments": "miou",
    "metric_depth": "rmse",
    "two_view": "recall",
    "keypoints": "all",
    "depth": "absrel",
    "depth_ridge": "absrel",
    "heldout": "sigmoid_vl",
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    sizes = ["--train", "24", "--test", str(TEST), "--size", "48", "--workers", "1"]
    assert make_scenes.main(["--output", str(root), *sizes]) == 0
    return root


def measured(world, stores, devices: int, batch_size: int) -> dict[str, dict[str, float]]:
    """Every number of a random model of 16 pixels."""
    config = tiny_config(world, tasks="vl+depth")
    evals = plain(scenes.get_config(f"data={stores},size=16,scenes={TEST},steps=3"))["evals"]
    evals["retrieval"].update(gallery=8)
    evals["two_view"].update(batch_size=batch_size)
    evals["keypoints"].update(batch_size=batch_size)
    system = System({**config, "evals": evals}, devices=jax.devices()[:devices])
    whole = system.eval_context(system.init_state())
    for evaluator in system.evaluators:
        evaluator.check([])
    return run_suite(system.evaluators, EvalContext(whole.model, whole.mesh, batch_size=batch_size))


def test_every_column_is_the_same_on_eight_devices(world, stores):
    """Padding of partial batches included; neighbours that tie may change places."""
    one = measured(world, stores, devices=1, batch_size=TEST)
    eight = measured(world, stores, devices=8, batch_size=16)
    assert one.keys() == eight.keys() == COLUMNS.keys()
    for column, headline in COLUMNS.items():
        assert math.isfinite(one[column][headline]), column
        assert one[column].keys() == eight[column].keys()
        for name, value in one[column].items():
            expected = pytest.approx(value, rel=2e-3, abs=2e-3, nan_ok=True)
            assert eight[column][name] == expected, f"{column}/{name}"
