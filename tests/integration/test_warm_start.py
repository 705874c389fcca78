# SPDX-License-Identifier: Apache-2.0
"""A finished run goes on at another image or patch size, through the entry points."""

import json
import pathlib
import shutil
import sys

import jax
import numpy as np
import pytest

from mtv_jax.training.checkpoint import load_numpy, steps_in
from tests.integration.helpers import run, train_command
from tests.integration.test_entry_points import _start_two, _wait_for

_CONFIG = """
from configs import quickstart

def get_config(arg=None):
    config = quickstart.get_config(arg)
    config.evals = {}
    return config
"""


def _command(world, workdir, **overrides: object) -> list[str]:
    """A tiny run at 32 pixels without evaluators, which would take most of the time."""
    size = overrides.get("model.image_size", 32)
    settings = {"model.image_size": size, "views.global_crop.size": size, **overrides}
    command = train_command(world, workdir, **settings)
    config = workdir.parent / "no_evals.py"
    config.write_text(_CONFIG)
    command = [word for word in command if not word.startswith("--config.evals")]
    return [
        f"--config={config}:data={world},tasks=vl" if "quickstart.py" in w else w for w in command
    ]


def _losses(workdir: pathlib.Path) -> list[float]:
    return [json.loads(x)["loss"] for x in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("finished") / "run"
    run(_command(world, workdir, total_steps=40, **{"checkpoint.every": 40}))
    return workdir


def _close(first_loss: float, finished: pathlib.Path) -> bool:
    """Whether a continuation begins where the finished run ended rather than where it began."""
    losses = _losses(finished)
    start, end = losses[0], float(np.mean(losses[-4:]))
    assert start - end > 1.5
    return abs(first_loss - end) < 0.2 * (start - end)


def test_an_export_goes_on_at_a_larger_size_and_resumes_without_it(world, finished, tmp_path):
    source, workdir = tmp_path / "source", tmp_path / "run"
    run([sys.executable, "-m", "mtv_jax.export", f"--workdir={finished}", f"--output={source}"])
    spec = json.loads((source / "mtv.json").read_text())
    spec["provenance"]["data"] += [{"store": "older"}]
    (source / "mtv.json").write_text(json.dumps(spec))
    settings = {"total_steps": 6, "model.image_size": 48, "init.source": source}
    command = _command(world, workdir, **settings)
    output = run(command)
    learned_from = [entry["store"] for entry in json.loads((workdir / "data.json").read_text())]
    assert learned_from == ["tiny", "older"], "what its first parameters learned from counts"
    report = (workdir / "init.txt").read_text()
    assert f"init from {source}: 59 loaded, 1 resampled, 0 fresh, 0 unused\n" in output
    assert "resampled backbone/image/pos_embed: 4 x 4 -> 6 x 6\n" in output
    assert "resampled\tbackbone/image/pos_embed\t(1, 36, 128)\t4 x 4 -> 6 x 6\n" in report
    straight, losses = load_numpy(workdir, 6, ("params", "opt")), _losses(workdir)
    assert _close(losses[0], finished) and len(losses) == 6

    shutil.rmtree(source)
    shutil.rmtree(workdir / "ckpt" / "6")  # as if it had been killed after the save of step 3
    (workdir / "DONE").unlink()
    output = run(command)
    assert "resuming" in output and "init from" not in output
    jax.tree.map(np.testing.assert_array_equal, load_numpy(workdir, 6, ("params", "opt")), straight)
    assert _losses(workdir) == losses and (workdir / "init.txt").read_text() == report


@pytest.mark.slow
def test_two_processes_go_on_from_a_run_with_larger_patches(world, finished, tmp_path):
    workdir = tmp_path / "run"
    sizes = {"model.image_size": 64, "model.patch_size": 16, "mesh.fsdp": 2, "mesh.data": 1}
    command = _command(world, workdir, total_steps=3, **sizes, **{"init.source": finished})
    _wait_for(_start_two(command))
    report = (workdir / "init.txt").read_text()
    assert f"init from {finished} step 40: 59 loaded, 1 resampled, 0 fresh, 0 unused\n" in report
    assert "resampled backbone/image/patch_embed/conv/kernel: 8 x 8 -> 16 x 16\n" in report
    assert _close(_losses(workdir)[0], finished)
    assert steps_in(workdir) == [3]


def test_a_source_that_does_not_fit_is_known_before_data_is_read(world, finished, tmp_path):
    no_store = {"input.stores.train.path": "/no_store"}
    for settings, message in (
        ({"init.source": "/nowhere"}, "error: init.source /nowhere is not there"),
        ({"init.source": finished, "model.vocab_size": 97}, "error: init.source has backbone/text"),
    ):
        command = _command(world, tmp_path / "run", **no_store, **settings)
        assert message in run(command, expect=2)
    assert not (tmp_path / "run").exists()
