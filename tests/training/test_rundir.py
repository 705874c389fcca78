# SPDX-License-Identifier: Apache-2.0
"""When a run directory may be continued."""

import dataclasses
import json

import pytest

from mtv_jax.core.errors import UserError
from mtv_jax.training import rundir
from mtv_jax.training.rundir import Meaning


def _meaning(lr=1.0, tokenizer="aa", workers=0) -> Meaning:
    config = {"optim": {"lr": lr}, "input": {"workers": workers}}
    return Meaning(config=config, preprocessing={"tokenizer_sha256": tokenizer})


@pytest.fixture
def workdir(tmp_path):
    """A directory in which a run has been recorded."""
    rundir.open_rundir(tmp_path, _meaning(), allow_changed=False)
    rundir.record_run(tmp_path, _meaning())
    return tmp_path


def test_nothing_is_refused_before_the_first_checkpoint(workdir):
    rundir.open_rundir(workdir, _meaning(lr=2.0), allow_changed=False)
    assert json.loads((workdir / "config.json").read_text())["optim"]["lr"] == 1.0, "not yet"


@pytest.mark.parametrize(
    ("changed", "difference"),
    [(_meaning(lr=2.0), "optim.lr: 1.0 -> 2.0"), (_meaning(tokenizer="bb"), "'aa' -> 'bb'")],
)
def test_another_meaning_is_refused_and_nothing_is_written(workdir, changed, difference):
    (workdir / "ckpt" / "3").mkdir(parents=True)
    with pytest.raises(UserError, match=difference):
        rundir.open_rundir(workdir, changed, allow_changed=False)
    rundir.open_rundir(workdir, changed, allow_changed=True)
    rundir.open_rundir(workdir, _meaning(workers=8), allow_changed=False)


def test_a_model_is_not_read_under_another_preprocessing(workdir, tmp_path):
    rundir.require_preprocessing(workdir, _meaning().preprocessing)
    rundir.require_preprocessing(tmp_path / "unrecorded", {"tokenizer_sha256": "bb"})
    with pytest.raises(
        UserError, match="image_size is 1, was None; tokenizer_sha256 is 'bb', was 'aa'"
    ):
        rundir.require_preprocessing(workdir, {"tokenizer_sha256": "bb", "image_size": 1})


def test_what_changed_is_noted(workdir):
    rundir.record_run(workdir, _meaning(workers=8))
    assert (workdir / "config.diff").read_text() == "input.workers: 0 -> 8\n"
    assert not list(workdir.glob("*.tmp*"))


def test_a_run_that_goes_on_keeps_where_it_came_from(workdir):
    def source(name: str) -> Meaning:
        config = {**_meaning().config, "init": {"source": name}}
        return dataclasses.replace(_meaning(), config=config)

    rundir.record_run(workdir, source("first"))
    (workdir / "ckpt" / "3").mkdir(parents=True)
    rundir.record_run(workdir, source("other"))
    assert json.loads((workdir / "config.json").read_text())["init"] == {"source": "first"}
    assert "other" not in (workdir / "config.diff").read_text()


def test_going_on_forgets_what_will_be_done_again(workdir):
    for step in (2, 4, 6):
        (workdir / "evals" / f"{step:08d}.json").touch()
    (workdir / "DONE").touch()
    rundir.reopen_at(workdir, 4)
    assert sorted(p.stem for p in (workdir / "evals").iterdir()) == ["00000002", "00000004"]
    assert not (workdir / "DONE").exists()


def test_what_a_run_learned_from_is_kept(workdir):
    """Each store and its labels once, in the order in which they came."""
    first, second = {"store": "a", "weight": 1.0}, {"store": "a", "weight": 2.0}
    assert rundir.read_data(workdir) == []
    for stores in ([first], [first], [second, first]):
        rundir.record_data(workdir, stores)
    assert rundir.read_data(workdir) == [first, second]
