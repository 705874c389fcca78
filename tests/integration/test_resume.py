# SPDX-License-Identifier: Apache-2.0
"""Killed and resumed equals straight, bit for bit: parameters, metrics, and the ledger."""

import json
import os
import pathlib
import random
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from mtv_jax.training.checkpoint import load_numpy, steps_in
from tests.integration.helpers import ROOT, WHOLE, environment, run, train_command


def _ledger(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(x) for x in (workdir / "logs" / "ledger0.jsonl").read_text().splitlines()]


def _losses(workdir: pathlib.Path) -> list[tuple[int, float]]:
    rows = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


def _assert_same_run(one: pathlib.Path, other: pathlib.Path) -> None:
    last = steps_in(one)[-1]
    assert steps_in(other)[-1] == last
    names = ("params", "ema", "opt", "slots", "position", "step")
    for a, b in zip(
        jax.tree.leaves(load_numpy(one, last, names)),
        jax.tree.leaves(load_numpy(other, last, names)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert _ledger(one) == _ledger(other)
    assert _losses(one) == _losses(other)


def _run_with_kills(command: list[str], workdir: pathlib.Path, kills: int, steps: int) -> int:
    """Starts `command` again and again, killing it when the ledger reaches random steps."""
    generator, done = random.Random(1), 0
    targets = sorted(generator.randrange(1, steps) for _ in range(kills))
    for target in targets:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None:
            ledger = workdir / "logs" / "ledger0.jsonl"
            if ledger.exists() and len(ledger.read_text().splitlines()) >= target:
                os.kill(process.pid, signal.SIGKILL)
                done += 1
                break
            time.sleep(0.01)
        process.wait()
    return done


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_straight(world, tmp_path, kills):
    steps = 12 if kills == 2 else 40
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    settings = {"total_steps": steps, "log.every": 4}  # lines and checkpoints at different steps
    run(train_command(world, straight, tasks=WHOLE, **settings))
    command = train_command(world, killed, tasks=WHOLE, **settings)
    assert _run_with_kills(command, killed, kills, steps) == kills
    run(command)
    assert (killed / "DONE").exists()
    _assert_same_run(straight, killed)


def test_resume_past_two_to_the_31(world, tmp_path):
    """A run whose stream position is beyond 2^32 reads on from there."""
    from input_pipeline.loader import InputConfig, LocalRows, StoreConfig, batches, open_streams
    from input_pipeline.records import SampleSource
    from input_pipeline.tokenizer import Tokenizer
    from mtv_jax.core.fields import CAPTION, IMAGE
    from mtv_jax.core.position import join_position

    fields = (IMAGE, CAPTION)
    streams = open_streams({"train": StoreConfig(path=str(world / "train"))}, fields)
    tokenizer = Tokenizer(str(world / "tokenizer.model"), 8)
    source = SampleSource(streams, fields, 32, tokenizer, {}, seed=3)
    first = (1 << 33) // 16
    rows = LocalRows(batch_size=16, rows=np.arange(4, 12))
    batch = next(batches(source, rows, first=first, config=InputConfig(stores={})))
    expected = (1 << 33) + np.arange(4, 12)
    np.testing.assert_array_equal(join_position(batch["position"]), expected)
    lone = source[int(expected[5])]
    np.testing.assert_array_equal(batch["image"][5], lone["image"])


def test_sigterm_saves_and_the_same_command_goes_on(world, tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    run(train_command(world, straight, total_steps=80, **{"checkpoint.every": 80}))
    command = train_command(world, stopped, total_steps=80, **{"checkpoint.every": 80})
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    ledger = stopped / "logs" / "ledger0.jsonl"
    while not (ledger.exists() and len(ledger.read_text().splitlines()) >= 3):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "same command goes on" in output
    assert 0 < steps_in(stopped)[-1] < 80 and not (stopped / "DONE").exists()
    assert "resuming" in run(command)
    _assert_same_run(straight, stopped)


def test_an_evaluation_that_was_cut_off_is_made_up_for(world, tmp_path):
    """Killed between its last checkpoint and the end of the evaluations after it."""
    workdir = tmp_path / "run"
    command = train_command(world, workdir, total_steps=3)
    run(command)
    numbers = workdir / "evals" / "00000003.json"
    straight = numbers.read_text()
    (workdir / "DONE").unlink()
    numbers.unlink()
    (workdir / "evals" / "00000009.json").write_text("{}")
    assert "DONE" in run(command) and numbers.read_text() == straight
    assert not (workdir / "evals" / "00000009.json").exists(), "of a step not taken"
    assert "zeroshot:" not in run(command), "what is there is not computed again"


def test_another_meaning_is_refused_and_other_hardware_is_not(world, tmp_path):
    workdir = tmp_path / "run"
    run(train_command(world, workdir, total_steps=3))
    changed = train_command(world, workdir, total_steps=3, **{"optim.lr": 0.5})
    output = run(changed, expect=2)
    assert "optim.lr: 0.0005 -> 0.5" in output and "--allow_changed_config" in output
    moved = train_command(world, workdir, total_steps=3, micro_batches=2, **{"mesh.data": 4})
    assert "DONE" in run(moved, devices=4)


def test_checkpoint_of_another_model_is_refused(world, tmp_path):
    workdir = tmp_path / "run"
    run(train_command(world, workdir, total_steps=3))
    other = train_command(world, workdir, total_steps=3, **{"model.vocab_size": 100})
    output = run([*other, "--allow_changed_config"], expect=2)
    assert "checkpoint is of another model" in output and "token_embed" in output
    teacher = train_command(world, workdir, total_steps=3, **{"ema.rules": "(('.*', True),)"})
    output = run([*teacher, "--allow_changed_config"], expect=2)
    assert "checkpoint is of another model" in output and "first ema" in output
    assert "DONE" in run(train_command(world, workdir, total_steps=3))
