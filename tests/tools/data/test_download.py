# SPDX-License-Identifier: Apache-2.0
"""What img2dataset is told, and what its shards say of the whole."""

import collections
import json
import socket

import pytest

from tools.data import download, fetch_reasons, resolver

SETTINGS = download.Settings(("url", "text", "uid", "similarity"), 1000, 224, 1024, 4.5)
EFFORT = download.Effort(("i2d", "-x"), 4, 64, 10, 1, 0.5)


def _flags(tmp_path, **changes):
    settings = download.Settings(**{**SETTINGS.__dict__, **changes})
    command = download.command_line(tmp_path, settings, EFFORT)
    assert command[:2] == ["i2d", "-x"]
    return dict(word.removeprefix("--").split("=", 1) for word in command[2:])


def test_flags(tmp_path):
    flags = _flags(tmp_path)
    assert flags["url_list"] == str(tmp_path / "fetch" / "urls")
    assert flags["output_folder"] == str(tmp_path)
    assert (flags["image_size"], flags["resize_mode"]) == ("1024", "keep_ratio_largest")
    assert flags["skip_reencode"] == flags["resize_only_if_bigger"] == "True"
    assert json.loads(flags["save_additional_columns"]) == ["uid", "similarity"]
    assert (flags["caption_col"], flags["min_image_size"]) == ("text", "224")
    assert (flags["processes_count"], flags["thread_count"], flags["retries"]) == ("4", "64", "1")
    assert not {"bbox_col", "verify_hash"} & set(flags)


def test_files_as_they_come(tmp_path):
    assert _flags(tmp_path, max_side=0)["resize_mode"] == "no"


def test_faces_are_blurred_and_hashes_verified(tmp_path):
    """An image that keeps its bytes would keep its faces."""
    flags = _flags(tmp_path, columns=("url", "sha256", "face_bboxes"))
    assert flags["bbox_col"] == "face_bboxes" and flags["skip_reencode"] == "False"
    assert json.loads(flags["verify_hash"]) == ["sha256", "sha256"]
    assert not {"save_additional_columns", "caption_col"} & set(flags)


def _write_shard(folder, number, successes, seconds, size=1000):
    statuses = {"success": successes, "timed out": 60 - successes, "HTTP Error 404: x": 40}
    stats = {"count": 100, "successes": successes, "duration": seconds, "status_dict": statuses}
    (folder / f"{number:05d}_stats.json").write_text(json.dumps(stats))
    (folder / f"{number:05d}.tar").write_bytes(b"x" * size)


def test_the_sums_and_the_forecast(tmp_path):
    _write_shard(tmp_path, 0, 10, 999.0)
    _write_shard(tmp_path, 1, 60, 20.0, 4_000_000)
    _write_shard(tmp_path, 2, 40, 30.0, 2_000_000)
    (tmp_path / "00003_stats.json").write_text("{")  # being written
    seen = download.tally(tmp_path, {"00000"})
    assert (seen.shards, seen.rows, seen.arrived) == (2, 200, 100)
    assert seen.reasons == {"timeout": 20, "HTTP 404": 80}
    # 200 addresses in 50 s of work by 4 processes: 16/s; 720 shards of 100 take 4500 s
    text = download.forecast(seen, 1_000_000, 720, 4)
    assert text == ("50 % arrive, 16 addresses/s, 1.2 h left, 500,000 images and 30.0 GB in all")


def test_a_disk_that_is_too_small(tmp_path, capsys, monkeypatch):
    _write_shard(tmp_path, 0, 60, 20.0, 4_000_000)
    monkeypatch.setattr(
        download.shutil, "disk_usage", lambda _: collections.namedtuple("D", "free")(10**9)
    )
    report = download._Report(1000, 100_000, 4, 0)
    report.show(download.tally(tmp_path), tmp_path)
    assert "warning: 4 GB to come, 1 GB free" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("message", "reason", "again"),
    [
        ("<urlopen error [Errno -2] Name or service not known>", "DNS", True),
        ("<urlopen error [Errno -3] Temporary failure in name resolution>", "DNS", True),
        ("HTTP Error 404: Not Found", "HTTP 404", False),
        ("HTTP Error 403: Forbidden", "HTTP 403", False),
        ("HTTP Error 429: Too Many Requests", "HTTP 429", True),
        ("HTTP Error 503: Service Unavailable", "HTTP 503", True),
        ("timed out", "timeout", True),
        ("The read operation timed out", "timeout", True),
        ("IncompleteRead(2535 bytes read, 2535 more expected)", "connection", True),
        ("[Errno 104] Connection reset by peer", "connection", True),
        ("<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] x>", "TLS", False),
        (
            "Use of image disallowed by X-Robots-Tag directive",
            "disallowed by its site (X-Robots-Tag)",
            False,
        ),
        ("image too small", "image too small", False),
        ("aspect ratio too large", "aspect ratio too large", False),
        ("Image decoding error", "not an image", False),
        ("hash mismatch", "hash mismatch: not the image that was listed", False),
        ("unknown url type: 'x'", "other", False),
        (None, "other", False),
    ],
)
def test_reasons(message, reason, again):
    assert fetch_reasons.reason(message) == reason
    assert fetch_reasons.is_transient(message) == again


def test_the_top_reasons():
    counts = fetch_reasons.count_reasons({"success": 50, "timed out": 30, "HTTP Error 404: x": 20})
    assert fetch_reasons.top(counts, 100, 1) == "timeout 30 %"


def _resolving(monkeypatch, answer):
    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return resolver.complaint([f"host{number}.invalid" for number in range(8)])


def test_hosts():
    urls = [
        "http://a.org/1",
        "https://a.org/2",
        "http://10.0.0.1/x",
        "http://localhost/",
        "x",
        "http://[bad",
    ]
    assert resolver.hosts_of([*urls, "http://b.org:80/"]) == ["a.org", "b.org"]
    assert len(resolver.hosts_of(f"http://h{number}.org/" for number in range(100))) == 20


def test_the_resolver(monkeypatch):
    def fails(*_):
        raise OSError("no")

    assert _resolving(monkeypatch, lambda *_: []) == ""
    assert "8 of 8 host names were not resolved" in _resolving(monkeypatch, fails)
    monkeypatch.setattr(resolver, "_SLOW_SECONDS", -1.0)
    assert "0 of 8 host names" in _resolving(monkeypatch, lambda *_: [])
    assert resolver.complaint(["one.invalid"]) == "", "one dead host says nothing"
