# SPDX-License-Identifier: Apache-2.0
"""Depth maps become a sidecar: values, holes, shapes, names, refusals."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from input_pipeline import decode
from input_pipeline.store import Store, finish_store, write_shard
from mtv_jax.core.fields import DEPTH
from tools.data import depth_maps, depth_values, ingest, verify

_WIDTH, _HEIGHT = 48, 40
_NAMES = ("a.jpg", "cats/b.JPG", "cats/c.v2.png")
_RAMP = np.linspace(1000, 2000, _HEIGHT * _WIDTH).reshape(_HEIGHT, _WIDTH).astype(np.uint16)


@pytest.fixture
def path(tmp_path, picture):
    """A store of three images in two shards, made from a folder."""
    _make_store(tmp_path, picture, (_WIDTH, _HEIGHT))
    return tmp_path / "store"


@pytest.fixture
def maps(tmp_path):
    """An empty folder."""
    (tmp_path / "maps/cats").mkdir(parents=True)
    return tmp_path / "maps"


def _make_store(folder, picture, size, names=_NAMES):
    for seed, name in enumerate(names):
        (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        picture(*size, seed=seed).save(folder / "photos" / name)
    source, target = str(folder / "photos"), str(folder / "store")
    options = ["--min_side", "32", "--rows_per_shard", "2", "--workers", "1"]
    assert ingest.main(["--input", source, "--output", target, *options]) == 0


def _save(path: pathlib.Path, values: np.ndarray):
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)


def _run(path, maps, are, *options):
    """Exit status of the tool."""
    arguments = ["--store", str(path), "--maps", str(maps), "--are", are, "--workers", "1"]
    return depth_maps.main([*arguments, *options])


def _read(path, sidecar="depth_v1", column="depth"):
    """The rasters by key; None where a row has none. What verify finds is nothing."""
    findings = verify.verify(path, 1)
    assert not findings.counts, findings.examples
    opened = Store.open(path, (sidecar,))
    rasters = {}
    for number in range(opened.num_rows):
        row = opened.read(*opened.locate(number), (column,))
        data = row.get(column)
        rasters[row["key"][0].decode()] = decode.decode_png16(data[0]) if data else None
    return rasters


def _scaled(values):
    values = values.astype(np.float64)
    return np.round((values - values.min()) / np.ptp(values) * 65535)


def test_depth_becomes_disparity(path, maps, capsys):
    _save(maps / "a.png", _RAMP)
    _save(maps / "cats/b.npy", _RAMP / 7)
    _save(maps / "cats/c.v2.png", (_RAMP // 10).astype(np.uint8))
    assert _run(path, maps, "depth") == 0
    rasters = _read(path)
    np.testing.assert_allclose(rasters["a.jpg"], _scaled(1 / _RAMP.astype(float)), atol=1)
    np.testing.assert_allclose(rasters["cats/b.JPG"], rasters["a.jpg"], atol=1)
    coarse = (_RAMP // 10).astype(np.uint8)
    np.testing.assert_allclose(rasters["cats/c.v2.png"], _scaled(1 / coarse.astype(float)), atol=1)
    printed = capsys.readouterr().out
    assert "rows 3: 3 with map, 0 without map, 0 with a map that was rejected" in printed
    assert Store.open(path, ("depth_v1",)).fields["depth"] == DEPTH


def test_disparity_is_scaled_only(path, maps):
    _save(maps / "a.png", _RAMP - 1000)  # 0 is the farthest, not unknown
    _save(maps / "cats/b.npy", (_RAMP / 100 - 15).astype(np.float16))
    assert _run(path, maps, "disparity") == 0
    rasters = _read(path)
    np.testing.assert_array_equal(rasters["a.jpg"], _scaled(_RAMP))
    np.testing.assert_allclose(rasters["cats/b.JPG"], _scaled(_RAMP), atol=65)
    assert rasters["cats/c.v2.png"] is None


def test_truth_keeps_its_numbers(path, maps):
    holes = _RAMP.copy()
    holes[:20] = 0
    far = _RAMP * 1e3
    far[0, :4] = [np.nan, np.inf, -1, 1e-9]
    _save(maps / "a.png", holes)
    _save(maps / "cats/b.npy", far)
    _save(maps / "cats/c.v2.npy", _RAMP.astype(np.int64))
    assert _run(path, maps, "depth", "--column", "metric_depth") == 0
    rasters = _read(path, "truth_v1", "metric_depth")
    np.testing.assert_array_equal(rasters["a.jpg"], holes)
    np.testing.assert_array_equal(rasters["cats/c.v2.png"], _RAMP)
    scaled = rasters["cats/b.JPG"]
    assert scaled[0, :4].tolist() == [0, 0, 0, 1], "unknown is 0, and nothing known becomes it"
    np.testing.assert_allclose(scaled[1:], _RAMP[1:] / 2000 * 65535, atol=0.5)


@pytest.mark.parametrize(
    ("are", "unit"), [("depth", "depth, 0 ="), ("disparity", "disparity, large = near, 0 =")]
)
def test_the_unit_says_what_the_truth_is(path, maps, are, unit):
    _save(maps / "a.png", _RAMP)
    assert _run(path, maps, are, "--column", "metric_depth", "--sidecar", "other_v3") == 0
    np.testing.assert_array_equal(_read(path, "other_v3", "metric_depth")["a.jpg"], _RAMP)
    field = Store.open(path, ("other_v3",)).fields["metric_depth"]
    assert field.unit.startswith(unit) and field.resample == "nearest"


@pytest.mark.parametrize("ending", [".png", ".npy"])
def test_holes_take_the_nearest_value(path, maps, ending):
    halves = np.full((_HEIGHT, _WIDTH), 500, np.uint16)
    halves[:, _WIDTH // 2 :] = 1000
    halves[:4, :4] = 0
    halves[-4:, -4:] = 0
    _save(maps / f"a{ending}", halves.astype(np.float64) if ending == ".npy" else halves)
    assert _run(path, maps, "depth") == 0
    label = _read(path)["a.jpg"]
    assert (label[:, : _WIDTH // 2] == 65535).all() and (label[:, _WIDTH // 2 :] == 0).all()


@pytest.mark.parametrize(
    ("are", "unknown"), [("depth", [np.nan, np.inf, -1]), ("disparity", [np.nan, np.inf, -np.inf])]
)
def test_unknown_floats_take_the_nearest_value(path, maps, are, unknown):
    values = _RAMP.astype(np.float32)
    values[0, :3] = unknown
    filled = values.copy()
    filled[0, :3] = values[0, 3]
    _save(maps / "a.npy", values)
    assert _run(path, maps, are) == 0
    wanted = _scaled(1 / filled if are == "depth" else filled)
    label = _read(path)["a.jpg"].astype(float)
    np.testing.assert_allclose(label[:, 3:], wanted[:, 3:], atol=1)
    np.testing.assert_allclose(label[0, :3], wanted[0, 3], atol=3500)  # a row below is as near


def test_a_map_that_knows_too_little_is_left_out(path, maps, capsys):
    holes = _RAMP.copy()
    holes[:4] = 0  # a tenth
    _save(maps / "a.png", holes)
    _save(maps / "cats/b.png", _RAMP)
    assert _run(path, maps, "depth") == 0
    printed = capsys.readouterr().out
    assert "rows 3: 1 with map, 1 without map, 1 with a map that was rejected" in printed
    assert "too many unknown pixels: see --max_unknown: 1\n  a.png: 0.100 are unknown" in printed
    assert _read(path)["a.jpg"] is None
    assert _run(path, maps, "depth", "--max_unknown", "0.11", "--overwrite") == 0
    assert _read(path)["a.jpg"] is not None


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("a.png", _RAMP.T.copy(), "turned by a quarter"),
        ("a.png", _RAMP[:-2].copy(), "another aspect than the stored image"),
        ("a.png", np.zeros((_HEIGHT, _WIDTH, 3), np.uint8), "want one gray channel"),
        ("a.npy", _RAMP[None], "want one gray channel"),
        ("a.npy", np.zeros((0, 5)), "want one gray channel"),
        ("a.npy", _RAMP > 1500, "want numbers"),
        ("a.npy", _RAMP.astype(object), "cannot be read"),
        ("a.npy", np.full(_RAMP.shape, 3.0), "constant"),
    ],
)
def test_a_map_that_cannot_be_used_is_left_out(path, maps, capsys, name, values, reason):
    _save(maps / name, values)
    _save(maps / "cats/b.png", _RAMP)
    assert _run(path, maps, "depth") == 0
    printed = capsys.readouterr().out
    assert "1 with map, 1 without map, 1 with a map that was rejected" in printed
    assert f"rejected, {reason}" in printed and f"\n  {name}: " in printed
    assert _read(path)["a.jpg"] is None


def test_a_turned_map_is_explained(path, maps, capsys):
    _save(maps / "a.png", _RAMP.T.copy())
    assert _run(path, maps, "depth") == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("error: every map was rejected, nothing is written: 1 turned by")
    assert (
        "upright (EXIF applied), turn the map (a.png: is 48x40, the stored image 40x48"
        in (errors[-1])
    )


@pytest.mark.parametrize("name", ["a.png", "a.npy"])
def test_damaged_files_are_left_out(path, maps, capsys, name):
    _save(maps / name, _RAMP)
    data = (maps / name).read_bytes()
    (maps / name).write_bytes(b"PK\x03\x04" if name == "a.npy" else data[: len(data) // 2])
    _save(maps / "cats/b.png", _RAMP)
    assert _run(path, maps, "depth") == 0
    assert f"rejected, cannot be read: 1\n  {name}: " in capsys.readouterr().out


def test_large_maps_are_shrunk_for_training_alone(tmp_path, picture, maps):
    _make_store(tmp_path, picture, (96, 72), ["a.jpg"])
    store = tmp_path / "store"
    blocks = np.array([[100, 200], [300, 400]], np.uint16)
    blocks = blocks.repeat(300, axis=0).repeat([351, 453], axis=1)
    _save(maps / "a.png", blocks)  # half a percent off the aspect
    assert _run(store, maps, "disparity") == 0
    assert _run(store, maps, "disparity", "--column", "metric_depth") == 0
    label, truth = _read(store)["a.jpg"], _read(store, "truth_v1", "metric_depth")["a.jpg"]
    assert label.shape == (288, 384) and truth.shape == (600, 800)
    corners = np.ix_([0, -1], [0, -1])
    assert label[corners].tolist() == [[0, 21845], [43690, 65535]]
    assert truth[corners].tolist() == [[100, 200], [300, 400]]
    assert np.unique(truth).tolist() == [100, 200, 300, 400], "never a mixture"


def test_shrinking_averages():
    noise = np.random.default_rng(0).normal(0, 100, (288 * 4, 384 * 4))
    noise[:, 768:] += 1000
    left, right = np.split(depth_values.to_label(noise, "disparity", (72, 96), 0), 2, axis=1)
    assert 0.2 < (left.std() / (right.mean() - left.mean())) / (100 / 1000) < 0.3, "a quarter"


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("a/b.c.JPEG", ["a/b.c.png", "a/b.c.npy", "a/b.c_d.png", "a/b.c_d.npy"]),
        ("a.b/7", ["a.b/7.png", "a.b/7.npy", "a.b/7_d.png", "a.b/7_d.npy"]),
        ("view.7", ["view.7.png", "view.7.npy", "view.7_d.png", "view.7_d.npy"]),
    ],
)
def test_names_of_maps(key, names):
    assert depth_maps.map_names(key, ("", "_d")) == names


def test_suffixes_choose_among_maps(path, maps, capsys):
    _save(maps / "a_depth_0.1mm.png", _RAMP)
    _save(maps / "a_disp.png", _RAMP)
    _save(maps / "cats/b_depth_mm.npy", _RAMP)
    suffixes = ["--suffix", "_depth_0.1mm", "--suffix", "_depth_mm"]
    assert _run(path, maps, "depth", *suffixes) == 0
    assert "maps of no row: 1 (a_disp.png)" in capsys.readouterr().out
    rasters = _read(path)
    assert rasters["cats/c.v2.png"] is None
    np.testing.assert_allclose(rasters["a.jpg"], rasters["cats/b.JPG"], atol=1)


def test_two_maps_for_one_row_are_no_map(path, maps, capsys):
    _save(maps / "a.png", _RAMP)
    _save(maps / "a.npy", _RAMP)
    _save(maps / "cats/b.png", _RAMP)
    assert _run(path, maps, "depth") == 0
    assert "rejected, several maps for one row: 1\n  a.png: a.png and" in capsys.readouterr().out


def test_keys_of_tars(tmp_path, maps, encoded, picture, write_tar):
    write_tar(tmp_path / "0.tar", {"v1.5/7.jpg": encoded(picture(_WIDTH, _HEIGHT))})
    source, store = str(tmp_path / "0.tar"), tmp_path / "store"
    ingest.main(["--input", source, "--output", str(store), "--min_side", "32", "--workers", "1"])
    (maps / "v1.5").mkdir()
    _save(maps / "v1.5/7.png", _RAMP)
    assert _run(store, maps, "depth") == 0
    assert _read(store)["v1.5/7"] is not None


def test_no_map_for_any_row(path, maps, capsys):
    _save(maps / "cats/other.png", _RAMP)
    assert _run(path, maps, "depth") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "for the row a.jpg of" in error and "want a.png or a.npy below" in error
    assert "which has cats/other.png: see --maps and --suffix" in error
    assert not list(path.glob("*depth_v1*"))


def test_a_store_that_does_not_know_its_sizes(tmp_path, maps, capsys):
    write_shard(tmp_path / "bare", "images", 0, [{"key": "a"}])
    finish_store(tmp_path / "bare", "bare", [], {})
    assert _run(tmp_path / "bare", maps, "depth") == 2
    assert "bare has no columns height and width" in capsys.readouterr().err


def test_a_folder_without_maps(path, maps, capsys):
    (maps / "a.jpg").write_bytes(b"")
    assert _run(path, maps, "depth") == 2
    assert f"--maps {maps} holds no .png or .npy" in capsys.readouterr().err


def test_an_existing_sidecar_is_safe(path, maps, capsys):
    _save(maps / "a.png", _RAMP)
    assert _run(path, maps, "depth") == 0
    before = {file: file.read_bytes() for file in path.iterdir()}
    assert _run(path, maps, "disparity") == 2
    assert "has a sidecar depth_v1 already" in capsys.readouterr().err
    assert _run(path, maps, "disparity", "--overwrite", "--suffix", "_wrong") == 2
    assert {file: file.read_bytes() for file in path.iterdir()} == before
    assert _run(path, maps, "disparity", "--overwrite") == 0
    np.testing.assert_array_equal(_read(path)["a.jpg"], _scaled(_RAMP))


def test_leftovers_of_another_writer_go(path, maps):
    write_shard(path, "depth_v1", 7, [{"key": "a.jpg"}])
    _save(maps / "a.png", _RAMP)
    assert _run(path, maps, "depth") == 0
    assert _read(path)["a.jpg"] is not None


@pytest.mark.parametrize("name", ["images", "store", "../depth_v1", "depth"])
def test_a_name_that_is_no_sidecar(path, maps, capsys, name):
    _save(maps / "a.png", _RAMP)
    assert _run(path, maps, "depth", "--sidecar", name, "--overwrite") == 2
    assert "want a name and a version, such as depth_v2" in capsys.readouterr().err
    assert Store.open(path).sidecars == ()


def test_workers_write_the_same(path, maps):
    _save(maps / "a.png", _RAMP)
    _save(maps / "cats/c.v2.png", _RAMP)
    assert _run(path, maps, "depth") == 0
    alone = {file.name: file.read_bytes() for file in path.glob("depth_v1-*")}
    assert _run(path, maps, "depth", "--overwrite", "--workers", "2") == 0
    assert {file.name: file.read_bytes() for file in path.glob("depth_v1-*")} == alone
