# SPDX-License-Identifier: Apache-2.0
"""A trained model is read from a run directory or an exported folder."""

import pathlib
import shutil

import chex
import jax
import numpy as np
import pytest

from mtv_jax.assemble import System
from mtv_jax.core.errors import UserError
from mtv_jax.dist.rules import path_string
from mtv_jax.interop.save import save_folder
from mtv_jax.interop.trained import TrainedEncoder
from mtv_jax.training.checkpoint import Checkpointer
from mtv_jax.training.init_source import InitConfig, read_source
from tests.tools.tiny import tiny_config

OLD, NEW = 3, 12


@pytest.fixture(scope="module")
def system(world) -> System:
    return System(tiny_config(world, tasks="vl+depth"))


@pytest.fixture(scope="module")
def params(system) -> dict:
    return jax.device_get(system.init_state().params)


@pytest.fixture(scope="module")
def workdir(system, tmp_path_factory) -> pathlib.Path:
    """A run with two checkpoints, of which the older holds ones."""
    workdir = tmp_path_factory.mktemp("runs") / "source"
    state = system.init_state()
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    ones = {path_string(path): np.ones(leaf.shape, np.float32) for path, leaf in leaves}
    saver = Checkpointer(workdir, system.checkpoint)
    saver.save(OLD, system.init_state(ones))
    saver.save(NEW, state)
    saver.close()
    (workdir / "tokenizer.sha256").write_text(system.tokenizer.sha256 + "\n")
    return workdir


def test_the_newest_checkpoint_or_the_one_that_is_named(system, workdir, params):
    newest = read_source(InitConfig(source=str(workdir)), system.tokenizer.sha256)
    assert newest.title == f"{workdir} step {NEW}"
    chex.assert_trees_all_equal(newest.params, params)
    old = read_source(InitConfig(source=str(workdir), step=OLD), system.tokenizer.sha256)
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(old.params))
    with pytest.raises(UserError, match=r"no checkpoint of step 5 \(it has: 3, 12\)"):
        read_source(InitConfig(source=str(workdir), step=5), system.tokenizer.sha256)


def test_an_exported_folder_gives_towers_and_heads_that_predict(system, params, tmp_path):
    folder = tmp_path / "export"
    trained = TrainedEncoder(
        encoder=system.model.encoder,
        params=params,
        objectives={o.name: o for o in system.model.objectives if o.name == "depth"},
        tokenizer=system.tokenizer,
    )
    save_folder(folder, trained)
    source = read_source(InitConfig(source=str(folder)), system.tokenizer.sha256)
    assert source.params["heads"].keys() == {"vl_logits", "depth_dpt"}
    chex.assert_trees_all_equal(source.params, params)
    with pytest.raises(UserError, match="another tokenizer"):
        read_source(InitConfig(source=str(folder)), "f00")


def test_another_tokenizer_is_refused_and_none_is_not_compared(system, workdir, tmp_path):
    with pytest.raises(UserError, match=r"another tokenizer than input\.tokenizer"):
        read_source(InitConfig(source=str(workdir)), "f00")
    assert read_source(InitConfig(source=str(workdir)), "").tokenizer
    copy = shutil.copytree(workdir, tmp_path / "copy")
    (copy / "tokenizer.sha256").write_text("\n")
    assert read_source(InitConfig(source=str(copy)), "f00").tokenizer == ""


def test_nothing_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="/nowhere is not there"):
        read_source(InitConfig(source="/nowhere"), "")
    with pytest.raises(UserError, match="has no checkpoint yet"):
        read_source(InitConfig(source=str(tmp_path)), "")
