# SPDX-License-Identifier: Apache-2.0
"""TFRecord framing, checksums, index, atomic writing."""

import multiprocessing
import os
import pickle
import signal
import struct

import google_crc32c
import numpy as np
import pytest

from input_pipeline import tfrecord
from input_pipeline.tfrecord import RecordError, RecordFile, RecordWriter

_PAYLOADS = [b"", b"a", b"payload" * 100, bytes(range(256))]


def _write(path, payloads=_PAYLOADS):
    with RecordWriter(path) as writer:
        for payload in payloads:
            writer.write(payload)
    return path


def test_reads_what_was_written(tmp_path):
    file = RecordFile(_write(tmp_path / "x.tfrecord"))
    assert [file[row] for row in range(len(file))] == _PAYLOADS
    for row in (-1, len(_PAYLOADS)):
        with pytest.raises(IndexError, match=f"no row {row}"):
            file[row]


def test_framing_is_the_standard_one(tmp_path):
    """Record layout and mask as the TFRecord documentation gives them, worked out by hand."""
    path = _write(tmp_path / "x.tfrecord", [b"hello"])

    def masked(data):
        crc = google_crc32c.value(data)
        return (((crc >> 15) | (crc << 17)) % 2**32 + 0xA282EAD8) % 2**32

    length = struct.pack("<Q", 5)
    expected = length + struct.pack("<I", masked(length)) + b"hello"
    assert path.read_bytes() == expected + struct.pack("<I", masked(b"hello"))


def test_known_checksum():
    assert google_crc32c.value(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert tfrecord.masked_crc(b"123456789") == 0xC78AB0E5  # rotated by 15, plus 0xA282EAD8


def test_index_is_a_plain_array_of_offsets(tmp_path):
    path = _write(tmp_path / "x.tfrecord")
    offsets = np.load(tfrecord.index_path(path))
    assert offsets.dtype == np.uint64
    np.testing.assert_array_equal(np.diff(offsets), [len(p) + 16 for p in _PAYLOADS])
    assert offsets[-1] == path.stat().st_size


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "stale", "other_type"])
def test_unusable_index_is_rebuilt(tmp_path, damage):
    path = _write(tmp_path / "x.tfrecord")
    index = tfrecord.index_path(path)
    good = index.read_bytes()
    if damage == "missing":
        index.unlink()
    elif damage == "other_type":
        offsets = np.load(index).astype(np.float64)
        with open(index, "wb") as file:
            np.save(file, offsets)
    else:
        other = _write(tmp_path / "y.tfrecord", _PAYLOADS[:2])
        stale = tfrecord.index_path(other).read_bytes()
        index.write_bytes({"empty": b"", "garbage": b"\x93NUMPYxx", "stale": stale}[damage])
    assert [RecordFile(path)[row] for row in range(4)] == _PAYLOADS
    assert index.read_bytes() == good


def test_reads_without_an_index_from_a_folder_it_cannot_write(tmp_path, monkeypatch):
    path = _write(tmp_path / "x.tfrecord")
    tfrecord.index_path(path).unlink()

    def refuse(path, data):
        raise PermissionError(path)

    monkeypatch.setattr(tfrecord.files, "write_atomically", refuse)
    assert RecordFile(path)[2] == _PAYLOADS[2]


@pytest.mark.parametrize(
    ("offset", "message"),
    [(0, "header"), (9, "header"), (12, "payload"), (16 + 700 - 2, "payload")],
)
def test_flipped_byte_is_found_and_named(tmp_path, offset, message):
    path = _write(tmp_path / "x.tfrecord", [b"first", b"payload" * 100, b"last"])
    start = int(np.load(tfrecord.index_path(path))[1])
    data = bytearray(path.read_bytes())
    data[start + offset] ^= 0x10
    path.write_bytes(data)
    file = RecordFile(path)
    with pytest.raises(RecordError, match=rf"x.tfrecord: row 1 at byte {start}: {message}"):
        file[1]
    assert (file[0], file[2]) == (b"first", b"last")


def test_index_of_another_file_of_equal_size_is_noticed(tmp_path):
    first = _write(tmp_path / "x.tfrecord", [b"12", b"3"])
    second = _write(tmp_path / "y.tfrecord", [b"1", b"23"])
    os.replace(tfrecord.index_path(second), tfrecord.index_path(first))
    with pytest.raises(RecordError, match="row 0 at byte 0: length 2 does not match the index"):
        RecordFile(first)[0]


def test_truncated_file_without_index_names_the_place(tmp_path):
    path = _write(tmp_path / "x.tfrecord")
    for lost in (1, 200, 256 + 16 - 5):
        (tmp_path / "cut.tfrecord").write_bytes(path.read_bytes()[:-lost])
        with pytest.raises(RecordError, match=r"cut.tfrecord: row 3 at byte \d+: cut short"):
            len(RecordFile(tmp_path / "cut.tfrecord"))


def test_a_file_cut_short_keeps_the_rows_before(tmp_path):
    path = _write(tmp_path / "x.tfrecord")
    before = [RecordFile(path)[row] for row in range(3)]
    path.write_bytes(path.read_bytes()[:-1])
    file = RecordFile(path)
    assert len(file) == 4 and [file[row] for row in range(3)] == before
    with pytest.raises(RecordError, match=r"row 3 at byte \d+: cut short"):
        file[3]


def test_zero_tail_is_not_read_as_empty_records(tmp_path):
    path = _write(tmp_path / "x.tfrecord")
    with open(path, "ab") as file:
        file.write(bytes(4096))
    with pytest.raises(RecordError, match="row 4"):
        len(RecordFile(path))


def test_no_records_make_a_valid_file(tmp_path):
    assert len(RecordFile(_write(tmp_path / "x.tfrecord", []))) == 0


def test_failed_writer_leaves_nothing_and_keeps_the_old_file(tmp_path):
    path = _write(tmp_path / "x.tfrecord", [b"old"])
    with pytest.raises(RuntimeError), RecordWriter(path) as writer:
        writer.write(b"new")
        raise RuntimeError
    assert sorted(os.listdir(tmp_path)) == ["x.tfrecord", "x.tfrecord.index"]
    assert RecordFile(path)[0] == b"old"


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), RecordWriter(tmp_path / "x.tfrecord") as writer:
        writer.write(b"new")
    assert os.listdir(tmp_path) == []


def _write_and_die(path, payloads):
    with RecordWriter(path) as writer:
        for payload in payloads:
            writer.write(payload)
        os.kill(os.getpid(), signal.SIGKILL)


def test_killed_writer_leaves_only_temporaries_which_the_next_one_removes(tmp_path):
    path = tmp_path / "x.tfrecord"
    process = multiprocessing.get_context("fork").Process(
        target=_write_and_die, args=(path, _PAYLOADS)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = os.listdir(tmp_path)
    assert left and all(".tmp-" in name for name in left)
    assert len(RecordFile(_write(path))) == len(_PAYLOADS)
    assert sorted(os.listdir(tmp_path)) == ["x.tfrecord", "x.tfrecord.index"]


@pytest.mark.parametrize("step", ["unlink", "index", "records"])
def test_kill_at_any_step_of_the_commit_leaves_nothing_wrong_to_read(tmp_path, monkeypatch, step):
    """A writer that dies while it overwrites leaves the old file or none, never a mix."""
    path = _write(tmp_path / "x.tfrecord", [b"12", b"3"])
    replace = os.replace

    def die_at(source, target):
        if (step == "index") == str(target).endswith(".index"):
            raise KeyboardInterrupt
        replace(source, target)

    if step == "unlink":
        monkeypatch.setattr(type(path), "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyError))
    else:
        monkeypatch.setattr(os, "replace", die_at)
    with pytest.raises((KeyboardInterrupt, KeyError)):
        _write(path, [b"1", b"23"])
    monkeypatch.undo()
    if path.exists():
        assert [RecordFile(path)[row] for row in range(2)] == [b"12", b"3"]


def _read_in_child(file, results):
    results.put([file[row] for row in range(len(file))])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_open_file_works_in_another_process(tmp_path, method):
    file = RecordFile(_write(tmp_path / "x.tfrecord"))
    assert file[1] == b"a"
    assert pickle.loads(pickle.dumps(file))[2] == _PAYLOADS[2]
    context = multiprocessing.get_context(method)
    results = context.Queue()
    process = context.Process(target=_read_in_child, args=(file, results))
    process.start()
    assert results.get(timeout=30) == _PAYLOADS
    process.join()
    assert file[3] == _PAYLOADS[3]
