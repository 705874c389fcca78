# SPDX-License-Identifier: Apache-2.0
"""Records of damaged files."""

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from input_pipeline.tfrecord import RecordWriter
from tools.data import record_files

_RECORDS = [np.random.default_rng(row).bytes(1000 + row) for row in range(40)]


def _tf_record(path):
    with RecordWriter(path) as writer:
        for record in _RECORDS:
            writer.write(record)


def _array_record(path):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in _RECORDS:
        writer.write(record)
    writer.close()


_WRITERS = {"tfrecord": _tf_record, "array_record": _array_record}


def _read(file_format, path, limit=10_000):
    records = []
    try:
        records += record_files.READERS[file_format](path, limit)
    except record_files.BrokenFile as broken:
        return records, str(broken)
    return records, ""


@pytest.fixture(params=list(_WRITERS))
def written(request, tmp_path):
    """A file of either format."""
    _WRITERS[request.param](tmp_path / "file")
    return request.param, tmp_path / "file"


def test_every_record_in_order(written):
    assert _read(*written) == (_RECORDS, "")


def test_a_damaged_record_is_passed_over(written):
    file_format, path = written
    data = bytearray(path.read_bytes())
    data[data.index(_RECORDS[20][:50]) + 25] ^= 1
    path.write_bytes(data)
    assert _read(file_format, path) == ([*_RECORDS[:20], "unreadable", *_RECORDS[21:]], "")


def test_large_records_are_passed_over(written):
    records, broken = _read(*written, limit=1010)
    assert records == [*_RECORDS[:11], *["oversize_member"] * 29] and not broken


def test_every_cut_keeps_what_came_before(tmp_path):
    _tf_record(tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    for kept in range(0, 4000, 77):
        (tmp_path / "cut").write_bytes(data[:kept])
        records, broken = _read("tfrecord", tmp_path / "cut")
        ends = [sum(16 + len(record) for record in _RECORDS[:n]) for n in range(1, 6)]
        assert records == _RECORDS[: sum(end <= kept for end in ends)]
        assert bool(broken) == (kept not in (0, *ends)), kept
        assert not broken or "cut short" in broken


def test_a_damaged_header_ends_the_file(tmp_path):
    _tf_record(tmp_path / "file")
    data = bytearray((tmp_path / "file").read_bytes())
    data[1016 + 1] ^= 1
    (tmp_path / "file").write_bytes(data)
    records, broken = _read("tfrecord", tmp_path / "file")
    assert records == _RECORDS[:1]
    assert broken == f"broken at byte 1016 of {len(data)} (no header of a TFRecord)"


def test_array_records_without_their_end_give_nothing(tmp_path):
    _array_record(tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    for content in (data[:-4000], b"nothing of the kind" * 9999, b""):
        (tmp_path / "file").write_bytes(content)
        assert _read("array_record", tmp_path / "file")[0] == []
