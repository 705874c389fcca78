# SPDX-License-Identifier: Apache-2.0
"""The way from a store to an exported folder, and one clear line for every bad use."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mtv_jax.training.checkpoint import steps_in
from tests.integration.helpers import ROOT, WHOLE, environment, run, train_command

MODULES = ("mtv_jax.train", "mtv_jax.evaluate", "mtv_jax.export", "mtv_jax.predict")


def _error(command: list[str], devices: int = 1) -> str:
    """The one line on stderr of a command that must fail with status 2."""
    output = run(command, devices=devices, expect=2)
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in output, output
    return lines[0]


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("trained") / "run"
    run(train_command(world, workdir, tasks=WHOLE, total_steps=6))
    return workdir


def test_smoke_run_dir_evaluation_and_export(world, trained):
    for name in ("config.json", "config.diff", "env.txt", "git.txt", "plan.txt", "memory.txt"):
        assert (trained / name).exists(), name
    for name in (
        "params.tsv",
        "metrics.jsonl",
        "tb",
        "evals/00000006.json",
        "ckpt/6",
        "DONE",
        "logs/host0.txt",
    ):
        assert (trained / name).exists(), name
    assert "optim.lr" not in (trained / "config.diff").read_text()

    evaluate_run = [sys.executable, "-m", "mtv_jax.evaluate", f"--workdir={trained}"]
    output = run(evaluate_run)
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["step"] == 6 and "zeroshot/top1" in output
    assert summary["numbers"]["zeroshot/top1"]["chance"] == pytest.approx(1 / 3)
    assert summary["numbers"]["depth/absrel"]["chance"] > 0
    for name in ("sigmoid_vl", "self_distill", "masked_pred", "grounding"):
        assert summary["numbers"][f"heldout/{name}"]["chance"] > 0
    in_loop = json.loads((trained / "evals" / "00000006.json").read_text())
    assert summary["numbers"] == in_loop

    folder = trained / "export"
    export = [sys.executable, "-m", "mtv_jax.export", f"--workdir={trained}"]
    output = run([*export, f"--output={folder}"])
    assert "parity not run" in output
    assert json.loads((folder / "parity.json").read_text())["status"] == "parity not run"

    recorded = trained / "preprocessing.json"
    spec = recorded.read_text()
    recorded.write_text(json.dumps({**json.loads(spec), "tokenizer_sha256": "another"}))
    for command in ([*export, f"--output={folder}"], evaluate_run):
        error = _error(command)
        assert "trained under another preprocessing (tokenizer_sha256 is '" in error
        assert "', was 'another')" in error
    recorded.write_text(spec)

    config = f"--config={ROOT / 'configs' / 'quickstart.py'}:data={world}"
    evaluate = [sys.executable, "-m", "mtv_jax.evaluate", f"--model={folder}", config]
    gallery = "--config.evals.retrieval.gallery=8"
    output = run([*evaluate, gallery, f"--output={trained / 'exported.json'}"])
    assert "heldout: unavailable" in output
    exported = json.loads((trained / "exported.json").read_text())["numbers"]
    for key, entry in exported.items():
        assert entry["value"] == pytest.approx(summary["numbers"][key]["value"], abs=1e-6), key


def test_the_same_suite_on_eight_devices_gives_the_same_numbers(trained):
    """Batches are padded to the devices; the padding must not show."""
    output = trained / "eight.json"
    run(
        [sys.executable, "-m", "mtv_jax.evaluate", f"--workdir={trained}", f"--output={output}"],
        devices=8,
    )
    eight = json.loads(output.read_text())["numbers"]
    one = json.loads((trained / "evals" / "00000006.json").read_text())
    for key, entry in one.items():
        assert eight[key]["value"] == pytest.approx(entry["value"], rel=1e-4), key


def test_an_evaluation_that_is_cut_keeps_what_it_measured(trained, tmp_path):
    """And one without evaluators says where to find some."""
    base = "from mtv_jax.evaluators.base import Evaluator\n\n\nclass Cut(Evaluator):\n"
    (tmp_path / "cutting.py").write_text(f"{base}    def run(self, ctx):\n        raise KeyError\n")
    config = tmp_path / "evals.py"
    entries = json.loads((trained / "config.json").read_text())["evals"]
    kept = {"a_heldout": {**entries["heldout"], "every": 0}}
    cut = {"type": "cutting:Cut", "data": entries["heldout"]["data"]}
    lines = "from ml_collections import ConfigDict\n\n\ndef get_config():\n"
    evaluate = [sys.executable, "-m", "mtv_jax.evaluate", f"--workdir={trained}"]
    evaluate += [f"--config={config}", f"--output={tmp_path / 'cut.json'}"]

    config.write_text(f"{lines}    return ConfigDict({{'evals': {{}}}})\n")
    assert "there are no evaluators: give --config" in _error(evaluate)

    config.write_text(f"{lines}    return ConfigDict({{'evals': {kept | {'b_cut': cut}!r}}})\n")
    path = f"PYTHONPATH={tmp_path}{os.pathsep}{ROOT}"
    run(["env", path, *evaluate, "--trust_root=cutting"], expect=1)
    assert "a_heldout/sigmoid_vl" in json.loads((tmp_path / "cut.json").read_text())["numbers"]


def test_the_step_compiles_once_and_before_any_data(world, tmp_path):
    """Not at all when nothing is left to do."""
    command = ["env", "JAX_LOG_COMPILES=1"]
    command += train_command(world, tmp_path / "run", total_steps=3)
    lines = run(command).splitlines()
    told = (tmp_path / "run" / "memory.txt").read_text().strip()
    assert told.startswith("memory per device: parameters ") and told in lines
    compiled = [line for line in lines if "Finished XLA compilation of jit(train_step)" in line]
    assert len(compiled) == 1
    assert "jit(train_step)" not in run(command)


def test_the_same_command_after_the_end_does_nothing(world, trained):
    before = (trained / "metrics.jsonl").read_text()
    assert "DONE" in run(train_command(world, trained, tasks=WHOLE, total_steps=6))
    assert (trained / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("module", MODULES)
def test_help_answers_without_importing_jax(module):
    source = (
        f"import sys; sys.argv=['x', '--help']; import runpy\n"
        f"try: runpy.run_module('{module}', run_name='__main__')\n"
        f"except SystemExit: print('jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert re.search(r"--(workdir|model)", done.stdout)
    assert done.stdout.strip().endswith("False")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"input.stores.train.path": "/nowhere"}, "the store /nowhere is not there"),
        ({"input.tokenizer": "/nowhere"}, "no tokenizer at input.tokenizer"),
        ({"model.vocab_size": 20}, "wrong tokenizer"),
        ({"mesh.data": 3}, "does not cover 4 devices"),
        ({"model.image_tower": "cpuu"}, 'did you mean "cpu"'),
        ({"model.dtype": "float16"}, "model.dtype = 'float16' is not one of its values"),
        ({"checkpoint.every": 0}, "checkpoint.every = 0 should be at least 1"),
        ({"evals.retrieval.gallery": 999}, "fewer than the gallery of 999"),
        ({"optim.warmup_steps": 100}, "must exceed optim.warmup_steps"),
        ({"evals.zeroshot.data.store": "/nowhere"}, "the store /nowhere is not there"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_configs_are_one_line(world, tmp_path, overrides, message):
    command = train_command(world, tmp_path / "run", **{"mesh.data": 4, **overrides})
    assert message in _error(command, devices=4)


def test_bad_command_lines_are_one_line(world, tmp_path):
    good = train_command(world, tmp_path / "run")
    assert 'Did you mean "lr"' in _error([*good, "--config.optim.lrr=1"])
    assert "could not convert" in _error([*good, "--config.optim.lr=fast"])
    assert "workdir" in _error([*good, "--workdirr=x"])
    assert "unknown task 'depht'" in _error([*good, "--config=configs/mtv_b16.py:tasks=vl+depht"])
    budget = "--config=configs/mtv_b16.py:chips=1,hours=1,chip=rtx409"
    assert "chip='rtx409' is not one of" in _error([*good, budget])
    assert "configs/nothing.py" in _error([*good, "--config=configs/nothing.py"])
    (tmp_path / "file").touch()
    unwritable = [x for x in good if not x.startswith("--workdir")]
    assert "cannot write to --workdir" in _error([*unwritable, f"--workdir={tmp_path}/file/run"])
    assert "holds no run" in _error([sys.executable, "-m", MODULES[1], f"--workdir={tmp_path}"])
    assert "holds no run" in _error([sys.executable, "-m", MODULES[2], f"--workdir={tmp_path}"])


@pytest.mark.parametrize(
    ("name", "scale", "total"),
    [("mtv_b16", "10m", "203,155,970"), ("mtv_l16", "100m", "652,150,786")],
)
def test_1_parameter_totals_by_dry_run(name, scale, total):
    config = f"--config=configs/{name}.py:tasks=vl,scale={scale}"
    output = run([sys.executable, "-m", "mtv_jax.train", config, "--dry_run"])
    assert output.splitlines()[-1] == f"total {total}"


def test_a_budget_is_explained_by_dry_run():
    config = "--config=configs/mtv_b16.py:chips=1,hours=24,chip=rtx4090"
    lines = run([sys.executable, "-m", "mtv_jax.train", config, "--dry_run"]).splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("config "))
    assert lines[first + 1].startswith("  budget 1 x rtx4090, 24 h")
    assert lines[first + 2].startswith("  batch_size 4096 -> 1024: ")


def _start_two(command) -> list[subprocess.Popen]:
    """The same command as two processes over gloo on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={
                **environment(1),
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(index),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]


def _wait_for(processes) -> list[str]:
    outputs = [p.communicate(timeout=300)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], "\n".join(outputs)
    return outputs


def test_two_processes_train_as_one(world, tmp_path):
    """Same losses, and each reads its half of every global batch."""
    alone = tmp_path / "alone"
    run(train_command(world, alone, total_steps=4), devices=2)
    _wait_for(_start_two(train_command(world, tmp_path / "both", total_steps=4)))
    losses = [
        [json.loads(x)["loss"] for x in (d / "metrics.jsonl").read_text().splitlines()]
        for d in (alone, tmp_path / "both")
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    ledgers = [
        (tmp_path / "both" / "logs" / f"ledger{i}.jsonl").read_text().splitlines() for i in range(2)
    ]
    firsts = [[json.loads(x)["first"] for x in ledger] for ledger in ledgers]
    assert firsts == [[0, 16, 32, 48], [8, 24, 40, 56]]


def test_a_signal_to_one_process_stops_all_of_them(world, tmp_path):
    settings = {"total_steps": 2000, "checkpoint.every": 2000}
    processes = _start_two(train_command(world, tmp_path / "run", **settings))
    ledger = tmp_path / "run" / "logs" / "ledger1.jsonl"
    while not (ledger.exists() and len(ledger.read_text().splitlines()) >= 3):
        assert all(p.poll() is None for p in processes), processes[0].communicate()
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    outputs = _wait_for(processes)
    assert all("the same command goes on" in output for output in outputs)
    (step,) = steps_in(tmp_path / "run")
    assert 3 <= step < 2000
