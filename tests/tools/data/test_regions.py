# SPDX-License-Identifier: Apache-2.0
"""Boxes with phrases become a sidecar: formats, keys, what is dropped, refusals."""

import json

import numpy as np
import pytest

from input_pipeline.store import Store, finish_store, write_shard
from mtv_jax.core.fields import BOXES, PHRASES, SCORES
from tools.data import ingest, inspect, regions, verify
from tools.data.region_files import row_name

_WIDTH, _HEIGHT = 96, 64
_NAMES = ("a.jpg", "cats/b.JPG", "cats/c.v2.png")
_BOX = [24, 16, 48, 48]


@pytest.fixture
def path(tmp_path, picture):
    """A store of three images in two shards, made from a folder."""
    for seed, name in enumerate(_NAMES):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        picture(_WIDTH, _HEIGHT, seed=seed).save(tmp_path / "photos" / name)
    _ingest(tmp_path / "photos", tmp_path / "store", "--rows_per_shard", "2")
    return tmp_path / "store"


@pytest.fixture
def write(tmp_path):
    """A writer of the file: one string, or entries as JSON lines."""

    def write(*entries):
        lines = (line if isinstance(line, str) else json.dumps(line) for line in entries)
        (tmp_path / "regions.jsonl").write_text("\n".join(lines) + "\n")
        return tmp_path / "regions.jsonl"

    return write


def _ingest(source, target, *options):
    given = ["--input", str(source), "--output", str(target), "--min_side", "32", *options]
    assert ingest.main([*given, "--workers", "1"]) == 0


def _entry(key, *found, size=(_WIDTH, _HEIGHT)):
    return {"key": key, "width": size[0], "height": size[1], "regions": list(found)}


def _region(box=_BOX, phrase="red car", **others):
    return {"box": list(box), "phrase": phrase, **others}


def _coco(**changes):
    coco = {
        "images": [
            {"id": 7, "file_name": "cats/b.jpg", "width": 192, "height": 128},
            {"id": 9, "file_name": "a.jpg", "width": 96, "height": 64},
        ],
        "categories": [{"id": 1, "name": "car"}, {"id": 3, "name": "traffic light"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [48, 32, 48, 64], "iscrowd": 0},
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 96, 32], "iscrowd": 1},
            {"image_id": 7, "category_id": 1, "bbox": [0, 64, 192, 64]},
        ],
    }
    return {**coco, **changes}


def _run(path, file, *options):
    """Exit status of the tool."""
    arguments = ["--store", str(path), "--regions", str(file), "--workers", "1"]
    return regions.main([*arguments, *options])


def _read(path, sidecar="regions_v1"):
    """(boxes, phrases, scores) by key, {} where a row has none; verify finds nothing."""
    findings = verify.verify(path, 1)
    assert not findings.counts, findings.examples
    opened = Store.open(path, (sidecar,))
    rows = {}
    for number in range(opened.num_rows):
        row = opened.read(*opened.locate(number), ("boxes", "phrases", "scores"))
        key = row.pop("key")[0].decode()
        if row:
            row["boxes"] = row["boxes"].reshape(-1, 4)
            row["phrases"] = [phrase.decode() for phrase in row["phrases"]]
        rows[key] = row
    return rows


def _error(capsys):
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1 and "Traceback" not in str(lines)
    return lines[-1]


def test_boxes_of_any_resolution_become_fractions(path, write, capsys):
    file = write(
        _entry("a.jpg", _region(score=0.25), _region([0, 0, 96, 32], "the sky", score=0.75)),
        "",
        _entry("cats/b", _region([240, 160, 480, 480]), size=(960, 640)),
    )
    assert _run(path, file) == 0
    rows = _read(path)
    np.testing.assert_allclose(rows["a.jpg"]["boxes"], [[0, 0, 1, 0.5], [0.25, 0.25, 0.5, 0.75]])
    assert rows["a.jpg"]["phrases"] == ["the sky", "red car"]
    np.testing.assert_array_equal(rows["a.jpg"]["scores"], np.float32([0.75, 0.25]))
    np.testing.assert_allclose(rows["cats/b.JPG"]["boxes"], [[0.25, 0.25, 0.5, 0.75]])
    np.testing.assert_array_equal(rows["cats/b.JPG"]["scores"], np.float32([1]))
    assert rows["cats/c.v2.png"] == {}
    printed = capsys.readouterr().out
    assert "sidecar regions_v1, 3 regions of 2 phrases" in printed
    assert "rows 3: 2 with regions, 0 with an entry that leaves none, 1 without an" in printed
    assert printed.endswith("entries of no row: 0\n")
    opened = Store.open(path, ("regions_v1",))
    assert opened.fields_of("regions_v1") == (BOXES, PHRASES, SCORES)
    assert opened.vocabulary("phrases") == {"red car": 2, "the sky": 1}


def test_fractions_stay_and_are_clipped(path, write):
    file = write(_entry("a", _region([-0.25, 0.5, 0.5, 1.25])))
    assert _run(path, file, "--boxes", "fraction") == 0
    np.testing.assert_array_equal(_read(path)["a.jpg"]["boxes"], [[0, 0.5, 0.5, 1]])


@pytest.mark.parametrize("indent", [None, 2])
def test_coco(path, write, capsys, indent):
    assert _run(path, write(json.dumps(_coco(), indent=indent))) == 0
    rows = _read(path)
    wanted = [[0.25, 0.25, 0.5, 0.75], [0, 0.5, 1, 1]]
    np.testing.assert_allclose(rows["cats/b.JPG"]["boxes"], wanted)
    assert rows["cats/b.JPG"]["phrases"] == ["traffic light", "car"]
    assert rows["a.jpg"] == rows["cats/c.v2.png"] == {}
    printed = capsys.readouterr().out
    assert "rows 3: 1 with regions, 1 with an entry that leaves none, 1 without" in printed
    assert "dropped, crowd annotations: 1\n  annotation 2\n" in printed


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        (_region([24, 16, 24, 48]), "empty or inverted boxes"),
        (_region([48, 16, 24, 48]), "empty or inverted boxes"),
        (_region([24, 80, 48, 90]), "boxes outside the image"),
        (_region([-10, 0, 1.5, 40]), "a side below --min_side"),
        (_region([0, 0, 96, 1.2]), "a side below --min_side"),
        (_region(score=-0.1), "a score below --min_score"),
        (_region(phrase=" \u200b<b>!?</b>\n"), "a phrase that says nothing"),
    ],
)
def test_what_is_dropped(path, write, capsys, region, reason):
    assert _run(path, write(_entry("a", region, _region(phrase="kept")))) == 0
    assert f"\ndropped, {reason}: 1\n  a: " in capsys.readouterr().out
    assert _read(path)["a.jpg"]["phrases"] == ["kept"]


def test_limits_are_included_and_can_be_set(path, write):
    found = [_region([12, 8, 13.92, 9.28], score=0.5), _region([12, 8, 48, 48], "low", score=0.4)]
    file = write(_entry("a", *found))
    assert _run(path, file, "--min_score", "0.5") == 0
    assert _read(path)["a.jpg"]["phrases"] == ["red car"]
    assert _run(path, file, "--min_side", "0.03", "--overwrite") == 0
    assert _read(path)["a.jpg"]["phrases"] == ["low"]


def test_the_highest_scores_are_kept(path, write, capsys):
    scores = (np.random.default_rng(0).permutation(30) + 1) / 30
    found = [_region(phrase=f"thing {score:.3f}", score=score) for score in scores]
    assert _run(path, write(_entry("a", *found))) == 0
    row = _read(path)["a.jpg"]
    np.testing.assert_array_equal(row["scores"], np.sort(scores)[:9:-1].astype(np.float32))
    assert row["phrases"] == [f"thing {score:.3f}" for score in row["scores"]]
    assert "dropped, more than 20 in an image: the lowest scores: 10\n" in capsys.readouterr().out


def test_phrases_are_cleaned(path, write):
    assert _run(path, write(_entry("a", _region(phrase="  A&amp;B\t\ud800<i>café</i> ")))) == 0
    assert _read(path)["a.jpg"]["phrases"] == ["A&B café"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (_entry("cats/b", _region(), size=(64, 96)), "turned by a quarter: stored images are"),
        (_entry("cats/b", _region(), size=(96, 60)), "another aspect than the stored image: 1"),
    ],
)
def test_another_aspect_is_refused(path, write, capsys, entry, reason):
    fits = _entry("a", _region(), size=(97, 64))
    assert _run(path, write(fits, entry)) == 0
    printed = capsys.readouterr().out
    assert f"\nrefused, {reason}" in printed and "\n  cats/b.JPG: is " in printed
    assert "rows 3: 1 with regions, 0 with an entry that leaves none, 1 without" in printed
    assert ", 1 with an entry that was refused" in printed
    assert _read(path)["cats/b.JPG"] == {}


def test_most_refused_is_an_error(path, write, capsys):
    turned = [_entry(name, _region(), size=(64, 96)) for name in _NAMES[:2]]
    assert _run(path, write(_entry(_NAMES[2], _region()), *turned)) == 2
    error = _error(capsys)
    assert "2 of 3 entries were refused, nothing is written: 2 turned by a quarter" in error
    assert "turn the boxes (a.jpg: is 96x64, the stored image 64x96 (height x width))" in error
    assert not list(path.glob("*regions_v1*"))


def test_two_entries_for_one_row_are_none(path, write, capsys):
    twice = [_entry("a.jpg", _region()), _entry("a", _region())]
    assert _run(path, write(*twice, _entry("cats/b", _region()))) == 0
    printed = capsys.readouterr().out
    assert "refused, several entries for one row: 1\n  a.jpg: 2 of them" in printed
    assert "entries of no row: 0" in printed
    assert _read(path)["a.jpg"] == {}


def test_entries_of_no_row_are_counted(path, write, capsys):
    others = [_entry(f"other{number}.jpg") for number in range(7)]
    assert _run(path, write(*others, _entry("a", _region()))) == 0
    listed = ", ".join(f"other{number}.jpg" for number in range(5))
    assert f"entries of no row: 7 ({listed}, …)\n" in capsys.readouterr().out


def test_no_entry_for_any_row(path, write, capsys):
    assert _run(path, write(_entry("photos/a.jpg", _region()))) == 2
    error = _error(capsys)
    assert "for the row a.jpg of" in error and "want the key a, with or without" in error
    assert error.endswith("regions.jsonl has photos/a.jpg")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([], "there is none"),
        ([_region([0, 0, 1.1, 1.1])], "1 a side below --min_side (a: 'red car'"),
    ],
)
def test_no_region_left(path, write, capsys, found, reason):
    assert _run(path, write(_entry("a", *found))) == 2
    assert f"error: no region is left, nothing is written: {reason}" in _error(capsys)
    assert not list(path.glob("*regions_v1*"))


_FITS = _entry("a", _region())


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["a,b,c"], "line 1: neither JSON lines"),
        (["{", '"images": [],', '"annotations": [}'], "line 3: neither JSON lines"),
        (["[1, 2]"], "line 1: neither JSON lines"),
        (['{"image_id": 1, "bbox": []}'], "line 1: neither JSON lines"),
        ([_FITS, "{oops"], "line 2: no JSON object (Expecting"),
        ([_FITS, "", "[]"], "line 3: want an object, not []"),
        ([{**_FITS, "key": 7}], "line 1: key 7: want a text"),
        ([{**_FITS, "regions": {}}], "line 1: regions {}: want a list"),
        ([{**_FITS, "width": 0}], "line 1: width 0: want a number of pixels"),
        ([{**_FITS, "height": None}], "line 1: height None: want a number of pixels"),
        ([_entry("a", _region(), _region([1, 2, 3]))], "line 1: region 2: box [1, 2, 3]: want 4"),
        ([_entry("a", _region([1, 2, 3, np.nan]))], "region 1: box [1, 2, 3, nan]: want 4 finite"),
        ([_entry("a", _region([1, 2, 3, "4"]))], "box [1, 2, 3, '4']: want 4 finite"),
        ([_entry("a", _region([1, 2, 3, 10**400]))], "want 4 finite numbers"),
        ([_entry("a", _region(score=np.inf))], "line 1: region 1: score inf: want a finite"),
        ([_entry("a", _region(phrase=3))], "line 1: region 1: phrase 3: want a text"),
        ([_entry("a", "car")], "line 1: region 1: want an object, not 'car'"),
        (["", " "], "is empty"),
    ],
)
def test_malformed_lines_are_named(path, write, capsys, lines, fault):
    assert _run(path, write(*lines)) == 2
    error = _error(capsys)
    assert "regions.jsonl " in error and fault in error
    assert [file.name for file in path.iterdir() if "regions" in file.name] == []


@pytest.mark.parametrize("member", ["key", "width", "height", "regions"])
def test_a_missing_member_is_named(path, write, capsys, member):
    entry = {name: value for name, value in _FITS.items() if name != member}
    assert _run(path, write(_FITS, entry)) == 2
    assert f"regions.jsonl line 2: has no {member}" in _error(capsys)


@pytest.mark.parametrize("member", ["box", "phrase"])
def test_a_missing_member_of_a_region_is_named(path, write, capsys, member):
    region = {name: value for name, value in _region().items() if name != member}
    assert _run(path, write(_entry("a", region))) == 2
    assert f"line 1: region 1: has no {member}" in _error(capsys)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"categories": [{"id": 1}]}, "categories: has no name"),
        ({"images": [{"id": 7, "file_name": "a", "width": 9}]}, "image 1: has no height"),
        ({"images": _coco()["images"] * 2}, "images: several have the same id"),
        ({"annotations": [{"image_id": 7, "category_id": 1}]}, "annotation 1: has no bbox"),
        (
            {"annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, np.nan]}]},
            "annotation 1: box [1, 2, 3, nan]: want 4 finite",
        ),
        (
            {"annotations": [{"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4]}]},
            "annotation 1: no image 7 or no category 2 in the file",
        ),
        (
            {"annotations": [{"image_id": [7], "category_id": 2, "bbox": [1, 2, 3, 4]}]},
            "annotation 1: image_id [7]: want a whole number or a text",
        ),
        ({"images": [], "annotations": []}, "holds no image"),
    ],
)
def test_malformed_coco_is_named(path, write, capsys, changes, fault):
    assert _run(path, write(_coco(**changes))) == 2
    error = _error(capsys)
    assert "regions.jsonl " in error and fault in error


def test_pixels_are_no_fractions(path, write, capsys):
    file = write(_entry("a", _region([0, 0, 1.5, 1])), _FITS)
    assert _run(path, file, "--boxes", "fraction") == 2
    assert "line 2: 48 is no fraction: want --boxes pixels" in _error(capsys)


def test_fractions_are_no_pixels(path, write, capsys):
    file = write(_entry("a", _region([0, 0, 1, 1])), _entry("cats/b"))
    assert _run(path, file) == 2
    assert "no coordinate is above 1, these are no pixels: --boxes fraction" in _error(capsys)
    assert _run(path, file, "--boxes", "fraction") == 0


@pytest.mark.parametrize(
    ("key", "name"), [("a/b.c.JPEG", "a/b.c"), ("a.b/7", "a.b/7"), ("view.7", "view.7")]
)
def test_names_of_rows(key, name):
    assert row_name(key) == name


def test_keys_of_tars(tmp_path, write, encoded, picture, write_tar):
    write_tar(tmp_path / "0.tar", {"v1.5/7.jpg": encoded(picture(_WIDTH, _HEIGHT))})
    _ingest(tmp_path / "0.tar", tmp_path / "store")
    assert _run(tmp_path / "store", write(_entry("v1.5/7.jpg", _region()))) == 0
    assert _read(tmp_path / "store")["v1.5/7"]["phrases"] == ["red car"]


def test_a_store_that_does_not_know_its_sizes(tmp_path, write, capsys):
    write_shard(tmp_path / "bare", "images", 0, [{"key": "a"}])
    finish_store(tmp_path / "bare", "bare", [], {})
    assert _run(tmp_path / "bare", write(_FITS)) == 2
    assert "bare has no columns height and width" in _error(capsys)


def test_a_file_that_is_not_there(path, tmp_path, capsys):
    assert _run(path, tmp_path / "none.jsonl") == 2
    assert "none.jsonl cannot be read: No such file or directory" in _error(capsys)


def test_an_existing_sidecar_is_safe(path, write, capsys):
    assert _run(path, write(_FITS)) == 0
    before = {file: file.read_bytes() for file in path.iterdir()}
    assert _run(path, write(_entry("a", _region(phrase="other")))) == 2
    assert "has a sidecar regions_v1 already" in _error(capsys)
    assert _run(path, write(_entry("wrong", _region())), "--overwrite") == 2
    assert {file: file.read_bytes() for file in path.iterdir()} == before
    write_shard(path, "regions_v1", 7, [{"key": "left over"}])
    assert _run(path, write(_entry("a", _region(phrase="other"))), "--overwrite") == 0
    assert _read(path)["a.jpg"]["phrases"] == ["other"]


@pytest.mark.parametrize("name", ["images", "../regions_v1", "regions"])
def test_a_name_that_is_no_sidecar(path, write, capsys, name):
    assert _run(path, write(_FITS), "--sidecar", name, "--overwrite") == 2
    assert "want a name and a version, such as depth_v2" in _error(capsys)
    assert _run(path, write(_FITS), "--sidecar", "boxes_v3") == 0
    assert _read(path, "boxes_v3")["a.jpg"]["phrases"] == ["red car"]


def test_workers_write_the_same(path, write):
    file = write(_coco())
    assert _run(path, file) == 0
    alone = {file.name: file.read_bytes() for file in path.glob("regions_v1*")}
    assert _run(path, file, "--overwrite", "--workers", "2") == 0
    assert {file.name: file.read_bytes() for file in path.glob("regions_v1*")} == alone


def test_boxes_are_drawn_where_they_are(path, write):
    assert _run(path, write(_entry("a", _region([480, 160, 720, 480]), size=(960, 640)))) == 0
    sheets = [
        np.asarray(inspect.draw_sheet(Store.open(path, sidecars), [0]))
        for sidecars in ((), ("regions_v1",))
    ]
    rows, columns = np.nonzero((sheets[0] != sheets[1]).any(axis=-1))
    gap, side = 8, 224  # the image lies in the middle of its panel
    height = side * _HEIGHT / _WIDTH
    top = gap + (side - height) / 2
    assert columns.min() - gap == pytest.approx(0.5 * side, abs=2)
    assert rows.min() - top == pytest.approx(0.25 * height, abs=2)
    assert rows.max() - top == pytest.approx(0.75 * height, abs=2)
