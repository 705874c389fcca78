# SPDX-License-Identifier: Apache-2.0
"""Lists of images: what is read of them, and which rows are wanted."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from mtv_jax.core.errors import UserError
from tools.data import metadata
from tools.data.conditions import Condition


def _write(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=3)
    return path


@pytest.fixture
def datacomp(tmp_path):
    return _write(
        tmp_path / "a.parquet",
        uid=[f"u{i}" for i in range(8)],
        url=["http://a/0", None, "", *(f"http://a/{i}" for i in range(3, 8))],
        text=["one", None, "", "a", "b", "c", "d", "e"],
        original_width=[640] * 6 + [200, 2000],
        original_height=[480] * 7 + [400],
        clip_l14_similarity_score=[0.1, 0.2, 0.3, 0.4, 0.5, None, 0.7, 0.8],
        sha256=["ab"] * 4 + [None] + ["cd"] * 3,
        face_bboxes=[[[0.1, 0.2, 0.3, 0.4]]] + [[]] * 7,
    )


def _wanted(*conditions, missing="keep", take=None):
    return metadata.Wanted(conditions, missing, 224, 1024 / 224, take, 0)


def _rows(listed, *conditions, **options):
    funnel = metadata.choose(listed, _wanted(*conditions, **options))
    return np.flatnonzero(funnel.alive).tolist(), funnel


def test_what_cannot_be_fetched_goes(datacomp):
    rows, funnel = _rows(metadata.Metadata([datacomp]))
    assert rows == [0, 3, 5]
    assert [(step.rule.split(" ")[0:2], step.removed) for step in funnel.steps] == [
        (["no", "address"], 2),
        (["no", "hash"], 1),
        (["short", "side"], 2),
    ]
    assert funnel.steps[0].examples == ("a.parquet:1", "a.parquet:2")


@pytest.mark.parametrize(("missing", "rows"), [("keep", [3, 5]), ("drop", [3])])
def test_scores(datacomp, missing, rows):
    condition = Condition("min", "clip_l14_similarity_score", "0.25")
    assert _rows(metadata.Metadata([datacomp]), condition, missing=missing)[0] == rows


def test_the_best_share_is_of_what_is_left(datacomp):
    condition = Condition("top", "clip_l14_similarity_score", "0.34")
    assert _rows(metadata.Metadata([datacomp]), condition, missing="drop")[0] == [3]


def test_sizes_by_their_short_names(datacomp):
    listed = metadata.Metadata([datacomp])
    assert _rows(listed, Condition("max", "width", "600"))[0] == []
    assert _rows(listed, take=1)[0] in ([0], [3], [5])


def test_the_list_for_the_downloader(datacomp):
    listed = metadata.Metadata([datacomp])
    alive = np.array([1, 0, 0, 0, 0, 1, 0, 0], bool)
    table = pyarrow.concat_tables(metadata.wanted_tables(listed, alive))
    assert table.column_names == [
        "url",
        "text",
        "uid",
        "sha256",
        "face_bboxes",
        "clip_l14_similarity_score",
    ]
    assert table["url"].to_pylist() == ["http://a/0", "http://a/5"]
    assert table["clip_l14_similarity_score"].type == pyarrow.float32()
    assert table["face_bboxes"].to_pylist() == [[[0.1, 0.2, 0.3, 0.4]], []]


def test_laion(tmp_path):
    path = _write(
        tmp_path / "b.parquet",
        URL=["http://a", "http://b", "http://c"],
        TEXT=["a", "b", "c"],
        WIDTH=[300, 300, 100],
        HEIGHT=[300, 300, 100],
        similarity=[0.3, 0.2, 0.4],
        punsafe=[0.1, 0.9, 0.1],
        NSFW=["UNLIKELY", "NSFW", "UNSURE"],
        AESTHETIC_SCORE=[5.0, 6.0, 7.0],
    )
    listed = metadata.Metadata([path])
    expected = ["url", "text", "similarity", "punsafe", "aesthetic_score", "nsfw"]
    assert listed.kept == expected
    assert _rows(listed)[0] == [0, 1]
    assert _rows(listed, Condition("only", "nsfw", "UNLIKELY"))[0] == [0]
    assert _rows(listed, Condition("max", "punsafe", "0.5"))[0] == [0]
    table = pyarrow.concat_tables(metadata.wanted_tables(listed, np.ones(3, bool)))
    assert table.column_names == expected and table["nsfw"].to_pylist()[1] == "NSFW"


def test_several_files_in_the_order_of_their_names(tmp_path):
    for name in "ba":
        _write(tmp_path / f"{name}.parquet", url=[f"http://{name}/{i}" for i in range(4)])
    listed = metadata.Metadata([tmp_path])
    assert listed.num_rows == 8 and listed.name_of(5) == "b.parquet:1"
    table = pyarrow.concat_tables(metadata.wanted_tables(listed, np.arange(8) % 4 == 1))
    assert table["url"].to_pylist() == ["http://a/1", "http://b/1"]


def test_what_is_no_list(tmp_path):
    with pytest.raises(UserError, match=r"no \.parquet file"):
        metadata.Metadata([tmp_path])
    with pytest.raises(UserError, match=r"gone\.parquet is not there"):
        metadata.Metadata([tmp_path / "gone.parquet"])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"bad\.parquet is not parquet"):
        metadata.Metadata([tmp_path / "bad.parquet"])
    with pyarrow.parquet.ParquetWriter(tmp_path / "0.parquet", pyarrow.schema({"url": "string"})):
        pass
    with pytest.raises(UserError, match=r"0\.parquet: the list has no rows"):
        metadata.Metadata([tmp_path / "0.parquet"])
    with pytest.raises(UserError, match="no column url"):
        metadata.Metadata([_write(tmp_path / "x.parquet", text=["a"])])


def test_files_that_differ(tmp_path):
    paths = [
        _write(tmp_path / "a.parquet", url=["http://a"], similarity=[0.3]),
        _write(tmp_path / "b.parquet", url=["http://b"]),
    ]
    with pytest.raises(UserError, match=r"b.parquet has no column similarity, .*a.parquet has"):
        list(metadata.wanted_tables(metadata.Metadata(paths), np.ones(2, bool)))


def test_a_column_that_is_not_there(datacomp):
    with pytest.raises(UserError, match=r"clip_l14_score=0.3: .*mean .clip_l14_similarity_score"):
        _rows(metadata.Metadata([datacomp]), Condition("min", "clip_l14_score", "0.3"))
