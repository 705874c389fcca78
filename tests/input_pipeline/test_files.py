# SPDX-License-Identifier: Apache-2.0
"""Positioned reads, and writes that appear whole or not at all."""

import gc
import os

import pytest

from input_pipeline import files
from mtv_jax.core.errors import UserError


def test_reads_by_position_and_stops_at_the_end(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    file = files.ReadOnlyFile(path)
    assert file.size == 10
    assert file.pread(3, 4) == b"456"
    assert file.pread(100, 8) == b"89"
    assert file.pread(5, 10) == b""


def test_descriptor_goes_with_the_last_reference(tmp_path):
    gc.collect()  # what other tests left
    path = tmp_path / "x"
    path.write_bytes(b"0")
    before = len(os.listdir("/proc/self/fd"))
    held = [files.ReadOnlyFile(path) for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before + 20
    held.clear()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_atomic_write_replaces_and_clears_what_a_killed_writer_left(tmp_path):
    path = tmp_path / "x"
    (tmp_path / "x.tmp-1").write_bytes(b"half")
    (tmp_path / "y.tmp-1").write_bytes(b"another file's")
    files.write_atomically(path, b"old")
    with open(path, "rb") as reader:
        files.write_atomically(path, b"new")
        assert reader.read() == b"old"  # whoever had it open keeps the old file whole
    assert path.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["x", "y.tmp-1"]


def test_failed_write_leaves_the_old_content_and_names_the_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    files.write_atomically(path, b"old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        files.write_atomically(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [IsADirectoryError, NotADirectoryError])
def test_a_target_that_cannot_be_written_is_left_alone(tmp_path, error):
    if error is IsADirectoryError:
        path = tmp_path / "x"
        path.mkdir()
    else:
        (tmp_path / "x").write_bytes(b"")
        path = tmp_path / "x" / "y"
    with pytest.raises(error) as caught:
        files.write_atomically(path, b"new")
    assert caught.value.filename == str(path) and os.listdir(tmp_path) == ["x"]


def test_a_folder_has_one_writer(tmp_path):
    """The lock goes with the last process that has its descriptor, here a copy of it."""
    with files.sole_writer(tmp_path / "x") as lock:
        with pytest.raises(UserError, match="wait for it"), files.sole_writer(tmp_path / "x"):
            pass
        copy = os.dup(lock)
    with pytest.raises(UserError), files.sole_writer(tmp_path / "x"):
        pass
    os.close(copy)
    with files.sole_writer(tmp_path / "x"):
        pass
