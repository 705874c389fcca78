# SPDX-License-Identifier: Apache-2.0
"""Rows lost before ingest, out of img2dataset's parquet."""

import sys

import pyarrow
import pyarrow.parquet
import pytest

from tools.data.upstream import LostRow, lost_rows


def _write(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def test_failed_and_missing_rows(tmp_path):
    _write(
        tmp_path / "00000.parquet",
        key=["a", "b", "c"],
        status=["success", "failed_to_download", "success"],
        error_message=[None, "404", None],
        face_bboxes=[[], [], []],
    )
    lost = lost_rows(tmp_path / "00000.tar", {"a"})
    assert lost == [
        LostRow("b", "failed_to_download", "404"),
        LostRow("c", "not_in_tar", None),
    ]
    assert lost[0].to_line() == '{"key":"b","status":"failed_to_download","error":"404"}\n'


def test_no_parquet_is_no_loss(tmp_path, capsys):
    assert lost_rows(tmp_path / "00000.tar", {"a"}) == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("case", ["garbage", "other_columns", "no_pyarrow"])
def test_a_parquet_that_cannot_be_read_is_noted(tmp_path, capsys, monkeypatch, case):
    path = tmp_path / "00000.parquet"
    if case == "garbage":
        path.write_bytes(b"PAR1 no")
    else:
        _write(path, url=["a"])
    if case == "no_pyarrow":
        monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert lost_rows(tmp_path / "00000.tar", {"a"}) == []
    assert f"note: {path} is not read" in capsys.readouterr().err
