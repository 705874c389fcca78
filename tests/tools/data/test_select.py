# SPDX-License-Identifier: Apache-2.0
"""A selection: rows taken out by rules, counted, and the same whatever the workers."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from input_pipeline import files
from input_pipeline.store import Store, finish_sidecar, finish_store, shard_path, write_shard
from mtv_jax.core.fields import CAPTION, IMAGE, Field
from tools.data import caption_rules, conditions, duplicates, facts, select, select_rules

ROWS = 40  # in three shards
SHARDS = (15, 20, 5)
FIELDS = (
    IMAGE,
    CAPTION,
    Field(name="height", dtype="int32"),
    Field(name="width", dtype="int32"),
    Field(name="similarity"),
    Field(name="nsfw", dtype="str"),
)
CAPTIONS = {
    3: "IMG_0003.jpg",
    4: "click to enlarge",
    5: None,
    6: "dog",
    20: "zwei Hunde spielen mit einem Ball am Strand",
}


def _row(row, image):
    columns = {"key": f"k{row:02}", "image": image, "height": 100 + row, "width": 200}
    caption = CAPTIONS.get(row, f"a picture of {row} small things on the table")
    if 30 <= row < 34:
        caption = "the same words on four rows"
    if caption:
        columns["caption"] = caption
    if row != 7:
        columns["similarity"] = row / ROWS
        columns["nsfw"] = "NSFW" if row % 10 == 9 else "UNLIKELY"
    return columns


@pytest.fixture
def path(tmp_path, picture, encoded):
    """Row 11 has the bytes of row 5, which has no caption; row 12 is row 10, smaller."""
    images = [encoded(picture(320, 240, seed=row)) for row in range(ROWS)]
    images[11] = images[5]
    images[12] = encoded(picture(320, 240, seed=10).resize((200, 150)))
    start = 0
    for shard, rows in enumerate(SHARDS):
        write_shard(
            tmp_path, "images", shard, (_row(r, images[r]) for r in range(start, start + rows))
        )
        start += rows
    finish_store(tmp_path, "forty", FIELDS, {})
    return tmp_path


def _select(path, *arguments, name="a"):
    """(rows, content of the report) of a selection."""
    status = select.main([str(path), "--name", name, "--workers", "1", *arguments])
    assert status == 0
    rows = np.asarray(Store.open(path).selection(name)).tolist()
    return rows, json.loads((path / "selections" / f"{name}.json").read_text())


def _without(*rows):
    return [row for row in range(ROWS) if row not in rows]


def _refused(path, capsys, *arguments):
    status = select.main([str(path), "--name", "a", "--workers", "1", *arguments])
    errors = capsys.readouterr().err
    assert status == 2 and not (path / "selections" / "a.npy").exists()
    return errors


def test_sizes_and_scores(path):
    assert _select(path, "--min", "height=110", "--max", "height=120")[0] == list(range(10, 21))
    rows, _ = _select(path, "--only", "nsfw=UNLIKELY,UNSURE", name="b")
    assert rows == _without(9, 19, 29, 39)
    assert _select(path, "--only", "nsfw=NSFW", "--missing", "drop", name="c")[0] == [9, 19, 29, 39]


def test_a_word_of_any_length_takes_a_few_bytes():
    fact = select_rules.column_fact(conditions.Condition("only", "nsfw", "x"))
    assert fact.dtype.itemsize < 10
    assert len({fact.describe({"nsfw": [b"x" * 100 + end]}) for end in (b"", b"a", b"b")}) == 3


@pytest.mark.parametrize("missing", ["keep", "drop"])
def test_a_row_without_the_value(path, missing):
    rows, report = _select(path, "--min", "similarity=0.5", "--missing", missing)
    kept = [7] if missing == "keep" else []
    assert rows == [*kept, *range(20, 40)]
    step = report["funnel"]["steps"][0]
    assert step["removed"] == 20 - len(kept) and step["missing"] == 1 - len(kept)


def test_the_best_share(path):
    """Of the 20 rows that --min leaves, not of the 40."""
    rows, _ = _select(path, "--min", "height=120", "--top", "similarity=0.25")
    assert rows == list(range(35, 40))


def test_captions(path):
    assert _select(path, "--require_caption")[0] == _without(5)
    assert _select(path, "--min_words", "2", name="b")[0] == _without(3, 6)
    assert _select(path, "--max_words", "8", "--min_characters", "17", name="c")[0] == _without(
        3, 4, 6, *(r for r in range(40) if r not in CAPTIONS and not 30 <= r < 34)
    )
    assert _select(path, "--no_boilerplate", name="d")[0] == _without(3, 4)
    assert _select(path, "--max_repeats", "3", name="e")[0] == _without(30, 31, 32, 33)
    assert _select(path, "--max_repeats", "4", name="f")[0] == _without()


def test_repeats_are_counted_over_the_store(path):
    """Two of the four are within the other selection, and the caption is still on four rows."""
    _select(path, "--max", "height=131", name="few")
    assert _select(path, "--within", "few", "--max_repeats", "3")[0] == list(range(30))


def test_language(path):
    pytest.importorskip("py3langid")
    assert _select(path, "--language", "en")[0] == _without(20)
    assert _select(path, "--language", "en,de", name="b")[0] == _without()
    assert _select(path, "--language", "en", "--language_from_words", "9", name="c")[0] == (
        _without()
    )


def test_of_equal_images_the_one_with_a_caption_stays(path):
    assert _select(path, "--no_duplicates")[0] == _without(5)


def test_similar_images(path, capsys):
    pytest.importorskip("imagehash")
    rows, report = _select(path, "--no_duplicates", "--near_duplicates")
    assert rows == _without(5, 12)
    assert capsys.readouterr().err.count("images:") == 1, "every image is read once"
    assert [step["rule"] for step in report["funnel"]["steps"]] == [
        "duplicate",
        "near-duplicate, 4 bits",
    ]
    assert report["settings"]["near_duplicates"] == 4


def test_bad_captions_go_before_duplicates(path):
    """Row 5 has no caption and its twin 11 a long one: with 11 gone, 5 is no duplicate."""
    rows, _ = _select(path, "--max_words", "3", "--no_duplicates")
    assert 5 in rows and 11 not in rows


def test_labels(path):
    for shard, start in enumerate(np.cumsum([0, *SHARDS[:-1]])):
        rows = (
            {"key": f"k{row:02}", **({"score": 1.0} if row % 2 else {})}
            for row in range(start, start + SHARDS[shard])
        )
        write_shard(path, "odd_v1", shard, rows)
    finish_sidecar(path, "odd_v1", (Field(name="score"),), {})
    assert _select(path, "--with", "odd_v1")[0] == list(range(1, ROWS, 2))
    assert _select(path, "--without", "odd_v1", name="b")[0] == list(range(0, ROWS, 2))


def test_a_sidecar_that_is_not_there(path, capsys):
    assert "no finished sidecar 'depth_v1'" in _refused(path, capsys, "--with", "depth_v1")


def test_subsets_nest(path):
    drawn = {}
    for count in (5, 10, 20):
        drawn[count], _ = _select(path, "--take", str(count), name=f"n{count}")
        assert len(drawn[count]) == count
    assert set(drawn[5]) < set(drawn[10]) < set(drawn[20])
    other, _ = _select(path, "--take", "10", "--seed", "1", name="other")
    assert other != drawn[10]
    within, _ = _select(path, "--within", "n20", "--take", "10", name="again")
    assert within == drawn[10]


def test_more_than_there_are(path, capsys):
    assert "--take 41: only 40 rows are left" in _refused(path, capsys, "--take", "41")


def test_nothing_left(path, capsys):
    errors = _refused(path, capsys, "--min", "height=1000")
    assert "no row is left of 40" in errors and "'--min height=1000' alone took out 40" in errors
    assert errors.splitlines()[-1].startswith("error: no row")


def test_the_funnel_adds_up_and_names_examples(path, capsys):
    _, report = _select(path, "--min_words", "2", "--no_boilerplate", "--take", "30")
    funnel = report["funnel"]
    assert funnel["rows_in"] == ROWS and funnel["rows_out"] == 30
    assert sum(step["removed"] for step in funnel["steps"]) == 10
    assert funnel["steps"][0] == {
        "rule": "too few words",
        "removed": 2,
        "left": 38,
        "missing": 0,
        "examples": ["k03", "k06"],
    }
    assert report["settings"]["seed"] == 0
    assert report["store"] == {"name": "forty", "rows": ROWS} and "numpy" in report["versions"]
    printed = capsys.readouterr().out
    assert "too few words" in printed and "e.g. k03, k06" in printed and "a, 30 rows" in printed


def test_a_selection_is_not_replaced_by_accident(path, capsys):
    _select(path, "--take", "5")
    assert select.main([str(path), "--name", "a", "--take", "6"]) == 2
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert len(_select(path, "--take", "6", "--overwrite")[0]) == 6


def test_two_at_a_time_would_lose_what_the_other_measured(path, capsys):
    with files.sole_writer(path):
        assert f"another process is writing {path}" in _refused(path, capsys, "--min_words", "2")
    assert _select(path, "--min_words", "2")[0] == _without(3, 6)


def test_all_that_there_are(path):
    assert _select(path, "--take", str(ROWS))[0] == _without()


def test_a_misspelt_column(path, capsys):
    errors = _refused(path, capsys, "--min", "similarty=0.2")
    assert 'has no such column (did you mean "similarity"?)' in errors


def test_a_selection_comes_after_its_report(path, monkeypatch):
    """A run that is killed between the two has made nothing."""

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(select.json, "dumps", killed)
    assert select.main([str(path), "--name", "a", "--take", "5"]) == 130
    monkeypatch.undo()
    assert len(_select(path, "--take", "6")[0]) == 6


def test_a_caption_that_cannot_be_read(path):
    """The other columns of that row can."""
    opened = Store.open(path)
    rows = [opened.read(0, row, list(opened.fields)) for row in range(SHARDS[0])]
    rows[2]["caption"] = [b"\xff a caption of some words"]
    write_shard(path, "images", 0, rows)
    rows, report = _select(path, "--min", "height=101", "--no_boilerplate")
    assert rows == _without(0, 2, 3, 4)
    assert report["funnel"]["steps"][0]["rule"] == "cannot be read"


def test_a_record_that_cannot_be_read(path):
    records = Store.open(path).records("images", 0)
    damaged = bytearray(shard_path(path, "images", 0).read_bytes())
    damaged[int(records.offsets[2]) + 40] ^= 0xFF
    shard_path(path, "images", 0).write_bytes(damaged)
    rows, report = _select(path, "--min", "height=101")
    assert rows == list(_without(0, 2))
    assert report["funnel"]["steps"][0]["rule"] == "cannot be read"
    assert report["funnel"]["steps"][0]["examples"] == ["shard 0 row 2"]


def test_the_workers_change_nothing(path):
    rules = ["--no_duplicates", "--no_boilerplate", "--top", "similarity=0.5", "--take", "10"]
    one, _ = _select(path, *rules)
    for leftover in (path / "selections").rglob("*.npz"):
        leftover.unlink()
    assert select.main([str(path), "--name", "b", "--workers", "2", *rules]) == 0
    assert np.asarray(Store.open(path).selection("b")).tolist() == one


def test_what_was_measured_is_not_measured_again(path, monkeypatch):
    _select(path, "--no_duplicates")
    monkeypatch.setattr(facts, "_measure_shard", None)
    assert _select(path, "--no_duplicates", "--min_words", "1", name="b")[0] == _without(5)


def test_a_stopped_run_goes_on(path, monkeypatch):
    measured = []
    whole = facts._measure_shard

    def fails_at_the_last(task):
        if task.shard == 2:
            raise KeyboardInterrupt
        measured.append(task.shard)
        whole(task)

    monkeypatch.setattr(facts, "_measure_shard", fails_at_the_last)
    assert select.main([str(path), "--name", "a", "--workers", "1", "--min_words", "2"]) == 130
    monkeypatch.setattr(
        facts, "_measure_shard", lambda task: (measured.append(task.shard), whole(task))
    )
    assert _select(path, "--min_words", "2")[0] == _without(3, 6)
    assert measured == [0, 1, 2]


def test_only_images_that_are_left_are_looked_at(path):
    _select(path, "--min", "height=130", "--no_duplicates")
    opened = Store.open(path)
    state = facts.load(opened, select_rules.DIGEST_FACT)["state"]
    np.testing.assert_array_equal(state, [0] * 30 + [facts.MEASURED] * 10)
    _select(path, "--max", "height=119", "--no_duplicates", name="b")
    state = facts.load(opened, select_rules.DIGEST_FACT)["state"]
    np.testing.assert_array_equal(state, [1] * 20 + [0] * 10 + [1] * 10)
    assert _select(path, "--no_duplicates", name="c")[0] == _without(5)


def test_other_records_at_the_same_place_are_measured_anew(path):
    """The same ones in reverse order: as many, of the same total size."""
    assert _select(path, "--min_words", "2")[0] == _without(3, 6)
    opened = Store.open(path)
    rows = [opened.read(0, row, list(opened.fields)) for row in range(SHARDS[0])]
    write_shard(path, "images", 0, reversed(rows))
    finish_store(path, "forty", FIELDS, {})
    last = SHARDS[0] - 1
    assert _select(path, "--min_words", "2", name="b")[0] == _without(last - 3, last - 6)


def test_missing_packages_are_named_before_the_work(path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    assert "pip install imagehash py3langid" in _refused(path, capsys, "--near_duplicates")
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    caption_rules._identifier.cache_clear()
    assert "pip install imagehash py3langid" in _refused(path, capsys, "--language", "en")
    assert not (path / "selections").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--near_duplicates", str(duplicates.MAX_DISTANCE + 1)],
        ["--take", "0"],
        ["--name", "../x"],
        ["--seed", "1"],
        ["--language_from_words", "3"],
        ["--min_language_probability", "0.5"],
        ["--missing", "drop", "--min_words", "2"],
    ],
)
def test_bad_arguments(path, arguments, capsys):
    with pytest.raises(SystemExit):
        select.main([str(path), "--name", "a", *arguments])


def test_help():
    command = [sys.executable, "-m", "tools.data.select", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert shown.returncode == 0 and "--near_duplicates" in shown.stdout
