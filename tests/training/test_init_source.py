# SPDX-License-Identifier: Apache-2.0
"""A trained model is read from a run directory or an exported folder."""

import json
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
from mtv_jax.training.warm_start import fit
from tests.tools.tiny import tiny_config

OLD, NEW = 3, 12
DATA = [{"store": "train", "rows": 9, "weight": 1.0, "labels": []}]
ANOTHER = {"tokenizer_sha256": "f00"}


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
    (workdir / "preprocessing.json").write_text(json.dumps(system.preprocessing))
    (workdir / "data.json").write_text(json.dumps(DATA))
    return workdir


def test_the_newest_checkpoint_or_the_one_that_is_named(system, workdir, params):
    newest = read_source(InitConfig(source=str(workdir)), system.preprocessing)
    assert newest.title == f"{workdir} step {NEW}" and newest.data == (*DATA,)
    chex.assert_trees_all_equal(newest.params, params)
    old = read_source(InitConfig(source=str(workdir), step=OLD), system.preprocessing)
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(old.params))
    with pytest.raises(UserError, match=r"no checkpoint of step 5 \(it has: 3, 12\)"):
        read_source(InitConfig(source=str(workdir), step=5), system.preprocessing)


def test_an_exported_folder_gives_towers_and_heads_that_predict(system, params, tmp_path):
    folder = tmp_path / "export"
    trained = TrainedEncoder(
        encoder=system.model.encoder,
        params=params,
        objectives={o.name: o for o in system.model.objectives if o.name == "depth"},
        tokenizer=system.tokenizer,
        provenance={"data": DATA},
    )
    save_folder(folder, trained)
    source = read_source(InitConfig(source=str(folder)), system.preprocessing)
    assert source.data == (*DATA,) and source.params["heads"].keys() == {"vl_logits", "depth_dpt"}
    chex.assert_trees_all_equal(source.params, params)
    with pytest.raises(UserError, match="another tokenizer"):
        read_source(InitConfig(source=str(folder)), ANOTHER)


def test_published_weights_begin_a_run(system, params, tmp_path):
    """A folder of transformers has towers and logits; the other heads begin at random."""
    folder = tmp_path / "published"
    trained = TrainedEncoder(
        encoder=system.model.encoder, params=params, tokenizer=system.tokenizer
    )
    save_folder(folder, trained)
    (folder / "mtv.json").unlink()
    source = read_source(InitConfig(source=str(folder)), system.preprocessing)
    assert "0 missing, 0 unexpected" in source.report[0] and len(source.report) == 1
    start = fit(source.title, source.params, system.abstract_state.params)
    fates = {leaf.path: leaf.fate for leaf in start.leaves}
    fresh = {path.rsplit("/", 1)[0] for path, fate in fates.items() if fate == "fresh"}
    assert all(path.startswith("heads/depth_dpt") for path in fresh) and fresh
    assert set(fates.values()) == {"loaded", "fresh"}
    for path, array in start.arrays.items():
        leaf = params
        for name in path.split("/"):
            leaf = leaf[name]
        np.testing.assert_array_equal(array, leaf)


def test_another_tokenizer_is_refused_and_none_is_not_compared(system, workdir, tmp_path):
    with pytest.raises(UserError, match=r"another tokenizer than input\.tokenizer"):
        read_source(InitConfig(source=str(workdir)), ANOTHER)
    assert read_source(InitConfig(source=str(workdir)), {}).report == ()
    copy = shutil.copytree(workdir, tmp_path / "copy")
    (copy / "preprocessing.json").write_text("{}")
    assert read_source(InitConfig(source=str(copy)), ANOTHER).preprocessing == {}


def test_what_this_run_reads_differently_is_said(system, workdir):
    spec = {**system.preprocessing, "image_resize": "by hand"}
    (line,) = read_source(InitConfig(source=str(workdir)), spec).report
    assert line.startswith("unlike the source, image_resize is 'by hand', was 'Pillow BICUBIC")


def test_nothing_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="/nowhere is not there"):
        read_source(InitConfig(source="/nowhere"), {})
    with pytest.raises(UserError, match="has no checkpoint yet"):
        read_source(InitConfig(source=str(tmp_path)), {})
