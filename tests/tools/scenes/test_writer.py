# SPDX-License-Identifier: Apache-2.0
"""Writing the stores: the same bytes whatever the workers, resumable, refusing a mix."""

import dataclasses
import hashlib

import pytest

from input_pipeline.store import Store
from tests.tools.scenes.conftest import SETTINGS
from tools.data import make_scenes
from tools.scenes import writer
from tools.scenes.labels import HOLDERS
from tools.scenes.sample import make_sample
from tools.scenes.writer import Settings, write_stores

_SMALL = Settings(train=7, test=4, size=32, seed=5)


def _digests(output):
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def short_shards(monkeypatch):
    monkeypatch.setattr(writer, "SHARD_ROWS", 3)


def test_workers_do_not_change_a_byte(tmp_path, short_shards):
    write_stores(tmp_path / "one", _SMALL, workers=1)
    write_stores(tmp_path / "two", _SMALL, workers=2)
    assert _digests(tmp_path / "one") == _digests(tmp_path / "two")
    assert Store.open(tmp_path / "one" / "train").shard_rows == (3, 3, 1)


def test_a_seed_makes_other_scenes(tmp_path):
    keys = {}
    for seed in (5, 6):
        output = tmp_path / str(seed)
        write_stores(output, dataclasses.replace(_SMALL, train=1, test=1, seed=seed), workers=1)
        keys[seed] = Store.open(output / "train").read(0, 0, ["image"])["image"]
    assert keys[5] != keys[6]


def test_a_killed_run_goes_on_with_the_missing_shards(tmp_path, short_shards, monkeypatch):
    write_stores(tmp_path, _SMALL, workers=1)
    whole = _digests(tmp_path)
    for name in ("depth_v1-00001.tfrecord", "store.json"):
        (tmp_path / "train" / name).unlink()
    made = []
    monkeypatch.setattr(
        writer, "make_sample", lambda *a, make=writer.make_sample: made.append(a) or make(*a)
    )
    write_stores(tmp_path, _SMALL, workers=1)
    assert _digests(tmp_path) == whole
    assert [(split, index) for _, split, index, _ in made] == [("train", i) for i in (3, 4, 5)]


def test_stores_open_with_their_classes(scene_stores):
    for split, count in (("train", SETTINGS.train), ("test", SETTINGS.test)):
        opened = Store.open(scene_stores / split)
        assert opened.num_rows == count
        assert opened.sidecars == tuple(sorted(HOLDERS[split][1:]))
        mug = next(kind for kind in opened.provenance["classes"] if kind["name"] == "mug")
        assert mug["synonyms"] == ["cup"]
        assert len(opened.provenance["held_out"]) == 330


def test_training_scenes_hold_no_held_out_combination(scene_stores):
    """Neither main objects nor others."""
    held_out = {tuple(looks) for looks in Store.open(scene_stores / "train").provenance["held_out"]}
    for index in range(SETTINGS.train):
        for thing in make_sample(SETTINGS.seed, "train", index, SETTINGS.size).scene.things:
            identity = thing.identity
            looks = (identity.object_class.name, identity.color, identity.pattern)
            assert looks not in held_out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seed", "6"], "other settings"),
        (["--train", "8"], "other settings"),
    ],
)
def test_other_settings_are_refused_in_one_line(tmp_path, capsys, change, message):
    command = ["--output", str(tmp_path / "s"), "--train", "1", "--test", "1", "--size", "32"]
    assert make_scenes.main([*command, "--workers", "1"]) == 0
    capsys.readouterr()
    assert make_scenes.main([*command, *change]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and "--output" in line


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert make_scenes.main(["--output", str(tmp_path), "--train", "1", "--test", "1"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("case", ["full disk", "file in the way", "damaged settings"])
def test_an_output_that_cannot_be_written_is_one_line(tmp_path, capsys, monkeypatch, case):
    output = tmp_path / "s"
    if case == "full disk":

        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(writer.store, "write_shard", fail)
        expected = f"error: {output}: No space left on device"
    elif case == "file in the way":
        output.write_text("mine")
        expected = f"error: {output}: Not a directory"
    else:
        output.mkdir()
        (output / "scenes.json").write_bytes(b"")
        expected = f"error: {output}/scenes.json cannot be read"
    command = ["--output", str(output), "--train", "1", "--test", "1", "--size", "32"]
    assert make_scenes.main([*command, "--workers", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(expected)
