# SPDX-License-Identifier: Apache-2.0
"""The columns of the paper on miniature trees: what is there, and what is missing."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from configs.eval import paper
from input_pipeline.layouts import clip_lists
from input_pipeline.layouts.ade20k import Ade20k
from mtv_jax.assemble import named_objects
from mtv_jax.core.config import plain
from mtv_jax.core.errors import UserError
from mtv_jax.evaluators.base import Evaluator
from tests.input_pipeline.layouts import trees
from tools.data.eval_checks import check

# By column: the miniature of what it reads.
COLUMNS = {
    "imagenet": trees.imagenet,
    "imagenet_central": trees.imagenet,
    "imagenet_tfds": trees.imagenet_tfds,
    "coco": trees.coco,
    "ade20k": trees.ade20k,
    "nyu": trees.nyu,
    "nyu_mat": trees.nyu_mat,
    "nyu_probe": trees.nyu_train,
    "navi": trees.navi,
    "spair": trees.spair,
    "kitti": trees.kitti,
}
LISTS = {"IMAGENET_CLASSNAMES": ["tench"] * 1000, "OPENAI_IMAGENET_TEMPLATES": ["a {}"]}


@pytest.fixture
def evaluators(tmp_path, monkeypatch):
    """By column, on whole trees."""
    monkeypatch.setattr("input_pipeline.layouts.imagenet.clip_list", LISTS.get)
    monkeypatch.setattr("mtv_jax.evaluators.zeroshot.clip_list", LISTS.get)
    for name, make in COLUMNS.items():
        (tmp_path / name).mkdir()
        make(tmp_path / name)
    config = paper.get_config(",".join(f"{name}={tmp_path / name}" for name in COLUMNS))
    made = named_objects("evals", plain(config)["evals"], ())
    return {evaluator.name: evaluator for evaluator in made}


def test_columns_that_are_there(evaluators, capsys):
    assert [check(evaluators[name]) for name in COLUMNS] == [0] * len(COLUMNS)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" images in ")[0] for line in lines] == [
        "imagenet: 3",
        "imagenet_central: 3",
        "imagenet_tfds: 3",
        "coco: 2",
        "ade20k: 2",
        "nyu: 2",
        "nyu_mat: 2",
        "nyu_probe: 2",
        "navi: 5",
        "spair: 4",
        "kitti: 1",
    ]


def test_neighbours_need_enough_training_images(evaluators, tmp_path, capsys):
    shutil.copytree(tmp_path / "imagenet" / "val", tmp_path / "imagenet" / "train")
    config = plain(paper.get_config(f"knn={tmp_path / 'imagenet'}"))
    (knn,) = named_objects("evals", config["evals"], ())
    assert check(knn) == 1
    assert "has 3 images, fewer than the 20 neighbours" in capsys.readouterr().out


def test_the_depth_probe_needs_both_sets():
    with pytest.raises(ValueError, match=r"name nyu=DIR beside it"):
        paper.get_config("nyu_probe=x")


def test_only_the_data_that_one_has(tmp_path):
    config = paper.get_config(f"coco={tmp_path}")
    assert [*config.evals] == ["coco"] and not paper.get_config().evals


def test_what_is_missing_is_listed(evaluators, tmp_path, capsys):
    for path in (tmp_path / "nyu").glob("*/sync_depth_00045.png"):
        path.unlink()
    (tmp_path / "coco" / "dataset_coco.json").unlink()
    assert [check(evaluators[name]) for name in ("nyu", "coco", "kitti")] == [1, 1, 0]
    text = capsys.readouterr().out
    assert "nyu: NyuDepth in" in text and "2 of its files are missing" in text
    assert text.count("    missing ") == 2 and "kitchen/sync_depth_00045.png" in text
    assert "coco: CocoCaptions in" in text and "dataset_coco.json cannot be read" in text


def test_maps_that_are_damaged_are_listed(evaluators, tmp_path, capsys):
    """Also those after a good one, and those of training data."""
    path = tmp_path / "nyu" / "kitchen" / "sync_depth_00045.png"
    path.write_bytes(path.read_bytes()[:-20])
    nyu = evaluators["nyu"]
    assert check(nyu) == 1
    first, *lines = capsys.readouterr().out.splitlines()
    assert re.match(r"nyu: NyuDepth in .*: 1 of its maps are damaged; get it from http", first)
    assert lines == [f"    {path} is damaged or cut short"]
    kitti = dataclasses.replace(evaluators["kitti"], train=nyu.data, label="metric_depth")
    assert check(kitti) == 1
    assert "kitti: NyuDepth in" in capsys.readouterr().out


def test_at_most_ten_files_are_listed(evaluators, tmp_path, capsys):
    lines = "".join(f"a/{k}.jpg a/{k}.png 1\n" for k in range(7))
    (tmp_path / "nyu" / "nyudepthv2_test_files_with_gt.txt").write_text(lines)
    assert check(evaluators["nyu"]) == 1
    first, *files, last = capsys.readouterr().out.splitlines()
    assert "14 of its files are missing" in first
    assert len(files) == 10 and last == "    and 4 more"


def test_annotations_that_are_damaged_are_listed(tmp_path, capsys):
    trees.ade20k(tmp_path)
    data = Ade20k(root=str(tmp_path))
    evaluator = Segmented(name="ade", data=data)
    assert check(evaluator) == 0
    masks = tmp_path / "annotations" / "validation"
    trees.raster(masks / "ADE_val_00000001.png", np.zeros((7, 9), np.uint8))
    (masks / "ADE_val_00000002.png").write_bytes(b"")
    assert check(evaluator) == 1
    text = capsys.readouterr().out
    assert "ade: Ade20k in" in text and "2 of its maps are damaged" in text
    assert "00000001.png has 7 x 9 pixels, not 9 x 7" in text
    assert "00000002.png: not an image" in text


class Segmented(Evaluator):
    """Of segments; measures nothing."""

    def run(self, ctx):
        raise AssertionError


def test_the_truth_of_a_distributed_set_has_no_error(evaluators):
    """Through the evaluator: crop, range and units are the data's."""
    nyu = evaluators["nyu"]
    truths = list(nyu.truths())
    assert truths[0][300, 300] == pytest.approx(1 / 2.5) and truths[0][0, 0] == 0.0
    rng = np.random.default_rng(0)
    guesses = [1 - 2 * truth + 0 * rng.random(truth.shape) for truth in truths]
    assert nyu.errors(guesses).max() < 1e-6


def test_without_clips_lists_the_remedy_is_said_before_the_run(evaluators, monkeypatch, capsys):
    monkeypatch.undo()
    clip_lists._metadata.cache_clear()
    monkeypatch.setattr(clip_lists.importlib.util, "find_spec", lambda name: None)
    assert check(evaluators["imagenet"]) == 1
    assert "pip install --no-deps open_clip_torch" in capsys.readouterr().out
    clip_lists._metadata.cache_clear()


def test_an_unknown_data_set_is_an_error():
    with pytest.raises((UserError, ValueError), match="'imagenets' is not one of"):
        paper.get_config("imagenets=x")
