# SPDX-License-Identifier: Apache-2.0
"""Rows of a store as evaluators read them."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from input_pipeline.decode import encode_png16
from input_pipeline.eval_data import IGNORED
from input_pipeline.eval_set import EvalSet
from input_pipeline.store import finish_sidecar, finish_store, write_selection, write_shard
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import IMAGE, Field

_KIND = Field(name="kind", dtype="int32")
_SEGMENTS = Field(name="segmentation", shape="h w", dtype="uint16", codec="png16")


def _png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 4, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def path(tmp_path):
    """Five rows in two shards; row i has pixels 10 i, odd rows have a kind."""
    for shard, rows in enumerate(([0, 1, 2], [3, 4])):
        images = [{"key": str(i), "image": _png(10 * i)} for i in rows]
        kinds = [{"key": str(i), **({"kind": 100 + i} if i % 2 else {})} for i in rows]
        write_shard(tmp_path, "images", shard, images)
        write_shard(tmp_path, "labels", shard, kinds)
    finish_store(tmp_path, "five", (IMAGE,), {"classes": ["a", "b"]})
    finish_sidecar(tmp_path, "labels", (_KIND,), {})
    write_selection(tmp_path, "few", np.array([4, 1, 3]))
    return str(tmp_path)


def test_rows_of_a_selection_in_store_order(path):
    data = EvalSet(store=path, selection="few", sidecars=("labels",))
    assert len(data) == 3 and str(data) == f"{path}[few]"
    assert [data.image(i)[0, 0, 0] for i in range(3)] == [10, 30, 40]
    kinds = data.column("kind")
    assert [int(k[0]) for k in kinds[:2]] == [101, 103] and kinds[2] is None
    assert data.provenance["classes"] == ["a", "b"]


@pytest.mark.parametrize(
    ("skip", "limit", "rows"),
    [
        (0, 0, [0, 1, 2, 3, 4]),
        (0, 2, [0, 1]),
        (0, 9, [0, 1, 2, 3, 4]),
        (3, 0, [3, 4]),
        (1, 2, [1, 2]),
    ],
)
def test_skip_and_limit(path, skip, limit, rows):
    data = EvalSet(store=path, skip=skip, limit=limit)
    assert [data.image(i)[0, 0, 0] // 10 for i in range(len(data))] == rows


def test_what_is_missing_is_named(path):
    with pytest.raises(UserError, match="has no column 'kind'"):
        EvalSet(store=path).column("kind")
    with pytest.raises(ValueError, match=r"no selection 'few2' \(it has: few\)"):
        EvalSet(store=path, selection="few2").open()
    write_selection(path, "none", np.array([], np.uint64))
    with pytest.raises(UserError, match=r"\[none\] has no rows"):
        EvalSet(store=path, selection="none").open()


def test_a_damaged_row_is_black_and_logged_and_the_rows_stay(path, caplog):
    shard = pathlib.Path(path) / "images-00000.tfrecord"
    raw = bytearray(shard.read_bytes())
    raw[-20] ^= 0xFF  # in the last record of the first shard
    shard.write_bytes(raw)
    data = EvalSet(store=path)
    assert len(data) == 5 and not data.image(2).any()
    assert [data.image(i)[0, 0, 0] for i in (1, 3, 4)] == [10, 30, 40]
    assert data.column("image")[2] is None and "unreadable: row 2" in caplog.text


def test_segments_are_what_is_no_object_and_the_classes(path):
    segments = np.asarray([[0, 1, 2]] * 2, np.uint16)
    for shard, rows in enumerate(([0, 1, 2], [3, 4])):
        encoded = {1: b"damaged", 2: None}
        values = [encoded.get(i, encode_png16(segments)) for i in rows]
        rows = [
            {"key": str(i), **({"segmentation": value} if value else {})}
            for i, value in zip(rows, values, strict=True)
        ]
        write_shard(pathlib.Path(path), "scenes", shard, rows)
    finish_sidecar(pathlib.Path(path), "scenes", (_SEGMENTS,), {})
    data = EvalSet(store=path, sidecars=("scenes",))
    assert data.segment_names() == ["background", "a", "b"]
    np.testing.assert_array_equal(data.segments(3), segments)
    assert data.segments(1).tolist() == data.segments(2).tolist() == [[IGNORED]]
    with pytest.raises(UserError, match="has no column 'segmentation'"):
        EvalSet(store=path).segment_names()


@pytest.mark.parametrize(
    ("number", "classes", "last"), [(3, 2, 2), (256, 2, 2), (255, 300, 254), (256, 300, 254)]
)
def test_segments_of_no_class_are_an_error_and_do_not_wrap(path, number, classes, last):
    """8 bits hold 255 classes and what is ignored."""
    raster = np.full((2, 3), number, np.uint16)
    for shard, rows in enumerate(([0, 1, 2], [3, 4])):
        rows = [{"key": str(i), "segmentation": encode_png16(raster)} for i in rows]
        write_shard(pathlib.Path(path), "scenes", shard, rows)
    finish_store(pathlib.Path(path), "five", (IMAGE,), {"classes": [*map(str, range(classes))]})
    finish_sidecar(pathlib.Path(path), "scenes", (_SEGMENTS,), {})
    with pytest.raises(UserError, match=rf"4 of .* name class {number}, the last is {last}$"):
        EvalSet(store=path, sidecars=("scenes",)).segments(4)
