# SPDX-License-Identifier: Apache-2.0
import sys

import numpy as np
import pytest
from PIL import Image

from mtv_jax.core.errors import UserError
from tools.golden import ram_plus
from tools.label.experts.ram_plus_files import IMAGE_SIZE, load_ram_plus, preprocess, read_tags


@pytest.fixture
def lists(tmp_path):
    tags, thresholds = tmp_path / "tags.txt", tmp_path / "thresholds.txt"
    tags.write_text("blue door\nriver\r\nold tree", encoding="utf-8")
    thresholds.write_text("0.65\n0.7\n0.5\n", encoding="utf-8")
    return {"tags": tags, "thresholds": thresholds}


def error_of(function, *args, **kwargs):
    with pytest.raises(UserError) as error:
        function(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_tags_and_thresholds_line_by_line(lists):
    found = read_tags(**lists)
    assert found.names == ("blue door", "river", "old tree")
    assert found.thresholds.dtype == np.float32
    np.testing.assert_allclose(found.thresholds, [0.65, 0.7, 0.5])


@pytest.mark.parametrize("values", ["0.65\n0.7\n", "0.65\n0.7\n0.5\n0.5\n"])
def test_unequal_counts_are_both_named(lists, values):
    lists["thresholds"].write_text(values)
    error = error_of(read_tags, **lists)
    assert "3 tags" in error and f"{values.count('0.')} thresholds" in error


@pytest.mark.parametrize("text", ["much", "1.5", "-0.1", "nan"])
def test_a_threshold_is_a_probability(lists, text):
    lists["thresholds"].write_text(f"0.65\n{text}\n0.5")
    assert f'line 2 of {lists["thresholds"]} is "{text}"' in error_of(read_tags, **lists)


def test_an_empty_line_is_no_tag(lists):
    lists["tags"].write_text("blue door\n\nold tree\n")
    assert f"line 2 of {lists['tags']} is empty" in error_of(read_tags, **lists)


def test_a_list_that_is_no_text(lists):
    lists["tags"].write_bytes(b"\xff\xfe\x00")
    assert "is not text" in error_of(read_tags, **lists)


@pytest.mark.parametrize("name", ["tags", "thresholds"])
def test_a_missing_list_says_where_it_is_published(lists, name):
    lists[name].unlink()
    error = error_of(read_tags, **lists)
    assert str(lists[name]) in error
    assert "github.com/xinyu1205/recognize-anything (Apache-2.0)" in error


def test_missing_weights_say_where_they_are_published(lists, tmp_path):
    pytest.importorskip("torch.nn", reason="PyTorch is not installed (make test-torch)")
    error = error_of(load_ram_plus, weights=tmp_path / "w.pth", **lists)
    assert "w.pth: no such file" in error
    assert "huggingface.co/xinyu1205/recognize-anything-plus-model" in error


def test_without_torch_it_says_so(lists, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "needs PyTorch" in error_of(load_ram_plus, weights="w.pth", **lists)


def test_another_dtype_is_refused(lists):
    assert "not int8" in error_of(load_ram_plus, weights="w.pth", dtype="int8", **lists)


def antialiased(values, size):
    """Columns of `values` resized with a triangle as wide as two output pixels, or input ones."""
    scale = len(values) / size
    reach = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(len(values)) - centres[:, None]) / reach)
    return np.einsum("oi,ixc->oxc", weights / weights.sum(axis=1, keepdims=True), values)


@pytest.mark.parametrize("height, width", [(500, 799), (1024, 200), (97, 131)])
def test_the_image_is_squashed_antialiased_and_normalised(height, width):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = preprocess(noise)
    assert found.shape == (3, IMAGE_SIZE, IMAGE_SIZE) and found.dtype == np.float32
    rows = antialiased(noise.astype(float), IMAGE_SIZE)
    expected = antialiased(rows.transpose(1, 0, 2), IMAGE_SIZE).transpose(2, 1, 0) / 255
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    np.testing.assert_allclose(found * std + mean, expected, atol=1 / 255)


def test_grey_levels_are_normalised_by_channel():
    grey = preprocess(np.asarray(Image.new("RGB", (10, 20), (0, 255, 0))))
    expected = [-0.485 / 0.229, (1 - 0.456) / 0.224, -0.406 / 0.225]
    np.testing.assert_allclose(grey.mean(axis=(1, 2)), expected, rtol=1e-5)


def test_golden_script_without_their_code_is_one_line(tmp_path, capsys):
    assert ram_plus.main(["--code", str(tmp_path), "--commit", "0"]) == 2
    error = capsys.readouterr().err
    assert "no ram/models/ram_plus.py; give --code" in error and error.count("\n") == 1
