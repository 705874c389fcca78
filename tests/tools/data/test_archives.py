# SPDX-License-Identifier: Apache-2.0
"""Samples out of tars: dialects, order, tricks, breaks."""

import io
import tarfile

import pytest

from tools.data import archives
from tools.data.archives import read_samples, scan_archive


def _samples(path):
    archive = scan_archive(path)
    return {sample.key: sample for sample in read_samples(archive)}, archive.broken


def _three(sample_members):
    return {
        name: content
        for number in range(3)
        for name, content in sample_members(
            f"{number:08}", b"jpeg %d" % number, f"c{number}"
        ).items()
    }


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_samples_in_the_order_of_the_tar(tmp_path, write_tar, sample_members, dialect):
    members = {}
    for key in ("00000007", "00000002", "123456789012"):
        members |= sample_members(key, key.encode(), f"caption {key}")
    samples, broken = _samples(write_tar(tmp_path / "0.tar", members, dialect))
    assert list(samples) == ["00000007", "00000002", "123456789012"]
    assert broken == ""
    sample = samples["00000002"]
    assert (sample.image, sample.text, sample.refusal) == (b"00000002", b"caption 00000002", "")
    assert b'"caption 00000002"' in sample.metadata


def test_names_beyond_ascii_and_beyond_100_characters(tmp_path, write_tar):
    names = {f"{'d' * 90}/é{'k' * 90}.jpg": b"long"}
    samples, broken = _samples(write_tar(tmp_path / "0.tar", names, tarfile.PAX_FORMAT))
    assert list(samples) == [f"{'d' * 90}/é{'k' * 90}"]
    assert broken == ""


def test_members_of_a_sample_need_not_be_neighbours(tmp_path, write_tar):
    members = {"a.txt": b"A", "b.jpg": b"2", "a.jpg": b"1", "b.txt": b"B", "b.seg.png": b"mask"}
    samples, _ = _samples(write_tar(tmp_path / "0.tar", members))
    assert {key: (s.image, s.text) for key, s in samples.items()} == {
        "a": (b"1", b"A"),
        "b": (b"2", b"B"),
    }


def test_samples_without_an_image(tmp_path, write_tar):
    samples, _ = _samples(
        write_tar(tmp_path / "0.tar", {"README": b"", "a.txt": b"x", "b.JPG": b"1"})
    )
    refusals = {key: sample.refusal for key, sample in samples.items()}
    assert refusals == {"README": "no_image", "a": "no_image", "b": ""}


def test_a_key_given_twice(tmp_path, write_tar, sample_members):
    path = write_tar(tmp_path / "0.tar", sample_members("a", b"first", "x"))
    with tarfile.open(path, "a") as archive:
        for name, content in sample_members("a", b"second", "y").items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    samples = list(read_samples(scan_archive(path)))
    assert [(s.key, s.image, s.refusal) for s in samples] == [
        ("a", b"first", ""),
        ("a", b"", "duplicate_key"),
    ]


@pytest.mark.parametrize(
    ("name", "kind", "refusal"),
    [
        ("/etc/passwd.jpg", tarfile.REGTYPE, "unsafe_path"),
        ("../up.jpg", tarfile.REGTYPE, "unsafe_path"),
        ("a/../../up.jpg", tarfile.REGTYPE, "unsafe_path"),
        ("..\\up.jpg", tarfile.REGTYPE, "unsafe_path"),
        ("C:/up.jpg", tarfile.REGTYPE, "unsafe_path"),
        ("soft.jpg", tarfile.SYMTYPE, "not_a_file"),
        ("hard.jpg", tarfile.LNKTYPE, "not_a_file"),
        ("device.jpg", tarfile.CHRTYPE, "not_a_file"),
        ("disk.jpg", tarfile.BLKTYPE, "not_a_file"),
        ("pipe.jpg", tarfile.FIFOTYPE, "not_a_file"),
    ],
)
def test_tricks_are_refused_and_the_rest_is_read(tmp_path, name, kind, refusal):
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as archive:
        trick = tarfile.TarInfo(name)
        trick.type, trick.linkname = kind, "/etc/passwd"
        archive.addfile(trick)
        good = tarfile.TarInfo("good.jpg")
        good.size = 4
        archive.addfile(good, io.BytesIO(b"good"))
    samples = list(read_samples(scan_archive(path)))
    assert [sample.refusal for sample in samples] == [refusal, ""]
    assert samples[0].image == b""
    assert samples[1].image == b"good"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.tar"]


@pytest.mark.parametrize(
    ("name", "limit"), [("a.jpg", "MAX_IMAGE_BYTES"), ("a.txt", "MAX_TEXT_BYTES")]
)
def test_oversize_members_are_refused(tmp_path, write_tar, monkeypatch, name, limit):
    monkeypatch.setattr(archives, limit, 10)
    members = (
        {"a.jpg": b"1", "a.txt": b"1"}
        | {name: b"x" * 11}
        | {"b.jpg": b"x" * 10, "b.cls": b"y" * 99}
    )
    samples, _ = _samples(write_tar(tmp_path / "0.tar", members))
    assert {key: sample.refusal for key, sample in samples.items()} == {
        "a": "oversize_member",
        "b": "",
    }


def test_every_cut_keeps_what_came_before_and_says_so(tmp_path, write_tar, sample_members):
    path = write_tar(tmp_path / "0.tar", _three(sample_members))
    data = path.read_bytes()
    with tarfile.open(path) as archive:
        ends = [m.offset_data + m.size for m in archive if m.name.endswith(".json")]
        last = [m.offset_data + m.size for m in archive][-1]
    cut = tmp_path / "cut.tar"
    for kept in range(0, last + 600, 97):
        cut.write_bytes(data[:kept])
        samples, broken = _samples(cut)
        whole = [key for key, sample in samples.items() if not sample.refusal]
        expected = sum(end <= kept for end in ends)
        assert len(whole) in (expected, expected - 1)
        assert whole == [f"{number:08}" for number in range(len(whole))]
        assert all(s.refusal in ("", "archive_cut", "no_image") for s in samples.values())
        assert bool(broken) == (kept < -(-last // 512) * 512 + 512), kept


def test_damaged_header_in_the_middle_is_a_break(tmp_path, write_tar, sample_members):
    path = write_tar(tmp_path / "0.tar", _three(sample_members))
    with tarfile.open(path) as archive:
        offset = archive.getmember("00000001.jpg").offset
    data = bytearray(path.read_bytes())
    data[offset + 3] ^= 0xFF
    path.write_bytes(data)
    samples, broken = _samples(path)
    assert list(samples) == ["00000000"]
    assert f"byte {offset}" in broken


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, bytes(10240)])
def test_what_is_no_tar_is_broken_unless_it_is_an_empty_one(tmp_path, content):
    (tmp_path / "0.tar").write_bytes(content)
    archive = scan_archive(tmp_path / "0.tar")
    assert archive.entries == []
    assert bool(archive.broken) == (content != bytes(10240))
