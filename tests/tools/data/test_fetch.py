# SPDX-License-Identifier: Apache-2.0
"""From a list of addresses to tars that ingest reads, with a stand-in for img2dataset."""

import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from input_pipeline.store import Store
from tools.data import download, failures, fetch, ingest

STAND_IN = f"{sys.executable} {pathlib.Path(__file__).with_name('downloader.py')}"
FAILING = {
    2: "HTTP Error 404: Not Found",
    3: "<urlopen error [Errno -3] Temporary failure in name resolution>",
    8: "timed out",
}
COUNT = 12


def _write_list(tmp_path, addresses, images, **columns):
    size = range(len(addresses))
    table = {
        "uid": [f"u{i}" for i in size],
        "url": addresses,
        "text": [f"picture {i}" for i in size],
        "original_width": [320] * len(addresses),
        "original_height": [240] * len(addresses),
        "clip_l14_similarity_score": [i / 100 for i in size],
        "sha256": [hashlib.sha256(image).hexdigest() for image in images],
        **columns,
    }
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "list.parquet")


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch):
    monkeypatch.setattr(download, "_POLL_SECONDS", 0.02)


@pytest.fixture
def listed(tmp_path, picture, encoded):
    """Twelve images, of which three do not arrive and one is another than was listed."""
    images = [encoded(picture(320, 240, seed=i)) for i in range(COUNT)]
    addresses = []
    for number, image in enumerate(images):
        path = tmp_path / "www" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image + b"poison" * (number == 5))
        message = FAILING.get(number)
        addresses.append(f"http://no.invalid/{message}" if message else path.as_uri())
    _write_list(tmp_path, addresses, images)
    return tmp_path


def _arguments(folder, *more, program=STAND_IN):
    given = ["--output", str(folder / "out"), "--img2dataset", program, "--processes", "1", *more]
    if "--retry" in more:
        return given
    return [*given, "--rows_per_shard", "5", "--metadata", str(folder / "list.parquet")]


def _fetch(folder, *more, **options):
    return fetch.main(_arguments(folder, *more, **options))


def _ingest(source, target):
    return ingest.main(["--input", str(source), "--output", str(target), "--workers", "1"])


def _ledger(folder):
    rows = pyarrow.parquet.read_table(folder / "failures.parquet").to_pylist()
    return {row["url"].rpartition("/")[2]: row["reason"] for row in rows}


def test_from_a_list_to_a_store(listed, capsys):
    assert _fetch(listed) == 0
    printed = capsys.readouterr().out
    out = listed / "out"
    assert "8 of 12 images" in printed and "4 failures, 2 of them worth a --retry" in printed
    assert _ledger(out) == {
        FAILING[2]: "HTTP 404",
        FAILING[3]: "DNS",
        FAILING[8]: "timeout",
        "5.jpg": "hash mismatch: not the image that was listed",
    }
    assert _ingest(out, listed / "store") == 0
    opened = Store.open(listed / "store")
    assert opened.shard_rows == (3, 3, 2)
    funnel = json.loads((listed / "store" / "funnel.json").read_text())
    assert funnel["failed_upstream"] == {"failed_to_download": 4}
    row = opened.read(1, 1, ["caption", "clip_l14_similarity_score"])
    assert row["caption"] == [b"picture 7"]
    assert row["clip_l14_similarity_score"] == [np.float32(0.07)]


def test_rules_come_first(listed):
    assert _fetch(listed, "--min", "clip_l14_similarity_score=0.06", "--max_side", "0") == 0
    out = listed / "out"
    table = pyarrow.parquet.read_table(out / "fetch" / "urls" / "00000.parquet")
    assert table["uid"].to_pylist() == [f"u{i}" for i in range(6, 12)]
    funnel = json.loads((out / "fetch" / "funnel.json").read_text())
    assert funnel["rows_in"] == 12 and funnel["rows_out"] == 6
    row = pyarrow.parquet.read_table(out / "00000.parquet").to_pylist()[0]
    assert row["clip_l14_similarity_score"] == pytest.approx(0.06)


def test_a_dry_run_writes_nothing(listed, capsys):
    assert _fetch(listed, "--dry_run", program="img2dataset") == 0
    printed = capsys.readouterr().out
    assert "rows left" in printed and "img2dataset --url_list=" in printed
    assert not (listed / "out").exists()


def test_a_second_pass(listed, capsys):
    """What may pass is fetched again, with the hash that it is to have."""
    _fetch(listed)
    again = pyarrow.concat_tables(
        failures.chosen(listed / "out", failures.rows_to_retry(listed / "out", 5))
    )
    assert again["uid"].to_pylist() == ["u3", "u8"]
    assert _fetch(listed, "--retry") == 2, "nothing arrives this time either"
    assert "no image arrived: DNS 50 %, timeout 50 %" in capsys.readouterr().err
    table = pyarrow.parquet.read_table(
        listed / "out" / "retry-1" / "fetch" / "urls" / "00000.parquet"
    )
    digest = hashlib.sha256((listed / "www" / "8.jpg").read_bytes()).hexdigest()
    assert table["sha256"].to_pylist()[1] == digest
    assert len(_ledger(listed / "out" / "retry-1")) == 2
    _fetch(listed, "--retry")
    assert (listed / "out" / "retry-2" / "failures.parquet").exists()


def test_nothing_to_retry(listed, capsys):
    assert _fetch(listed, "--retry") == 2
    assert "nothing was fetched" in capsys.readouterr().err
    _fetch(listed, "--min", "clip_l14_similarity_score=0.09")
    assert _fetch(listed, "--retry") == 2
    assert "no failure in" in capsys.readouterr().err


def test_the_same_command_goes_on(listed):
    _fetch(listed)
    out = listed / "out"
    (out / "00001_stats.json").unlink()
    (out / "00001.tar").write_bytes(b"half")
    assert _fetch(listed) == 0
    assert (out / "fetch" / "calls").read_text() == "[]\n[0, 2]\n"
    assert (out / "00001.tar").stat().st_size > 1000
    assert _fetch(listed) == 0, "and there is nothing left to do"
    assert (out / "fetch" / "calls").read_text().count("\n") == 2


def test_other_rules_want_another_folder(listed, capsys):
    _fetch(listed)
    assert _fetch(listed, "--min_side", "100") == 2
    assert "was begun with another min_side" in capsys.readouterr().err
    assert _fetch(listed, "--threads", "3", "--timeout", "2") == 0


def test_a_folder_of_somebody_else(listed, capsys):
    (listed / "out").mkdir()
    (listed / "out" / "00000_stats.json").write_text("{}")
    assert _fetch(listed) == 2
    assert "holds images that this tool did not fetch" in capsys.readouterr().err


def test_too_few_arrive(listed, capsys):
    """Stopped after the first shard, with the reasons."""
    assert _fetch(listed, "--min_yield", "0.9") == 2
    errors = capsys.readouterr().err
    assert "fewer than --min_yield 0.9" in errors and "HTTP 404" in errors and "DNS" in errors
    assert "caching resolver" in errors


def test_a_second_pass_is_not_stopped_over_its_yield(tmp_path):
    """Little of what failed once is to be expected."""
    given = ["--output", str(tmp_path)]
    assert fetch._parse([*given, "--retry"]).min_yield == 0
    assert fetch._parse([*given, "--metadata", "a"]).min_yield == 0.2
    assert fetch._parse([*given, "--retry", "--min_yield", "0.1"]).min_yield == 0.1


def test_a_short_last_shard_decides_nothing(listed):
    """Rows 10 and 11, of which none arrives now."""
    _fetch(listed)
    out = listed / "out"
    for name in ("00002_stats.json", "00002.tar", "00002.parquet"):
        (out / name).unlink()
    for number in (10, 11):
        (listed / "www" / f"{number}.jpg").write_bytes(b"poison")
    assert _fetch(listed) == 0
    assert len(_ledger(out)) == 6


@pytest.mark.parametrize("program", ["no-such-program", ""])
def test_no_program(listed, capsys, program):
    assert _fetch(listed, program=program) == 2
    assert "uv tool install --python 3.12 img2dataset" in capsys.readouterr().err


def test_a_program_that_does_nothing(listed, capsys):
    assert _fetch(listed, program=f"{sys.executable} -c pass") == 2
    assert "0 of 3 shards (status 0)" in capsys.readouterr().err


def test_a_program_that_fails(listed, capsys):
    assert _fetch(listed, program=f"{sys.executable} -c 'raise SystemExit(\"out of luck\")'") == 2
    errors = capsys.readouterr().err
    assert "0 of 3 shards (status 1)" in errors and "out of luck" in errors


@pytest.fixture
def downloading(tmp_path, encoded, picture):
    """A fetch whose download takes a minute; what is left of it ends with the test."""
    _write_list(tmp_path, ["http://no.invalid/sleep"], [encoded(picture())])
    command = [sys.executable, "-m", "tools.data.fetch", *_arguments(tmp_path)]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    calls = tmp_path / "out" / "fetch" / "calls"
    while not calls.exists():
        assert run.poll() is None
        time.sleep(0.05)
    yield run
    for process in [*_processes(tmp_path), run.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    run.wait()


def test_the_program_ends_with_us(tmp_path, downloading):
    downloading.send_signal(signal.SIGTERM)
    assert downloading.wait(20) == 130
    assert not _processes(tmp_path)


def test_a_program_that_outlived_us_is_alone(tmp_path, downloading, capsys):
    downloading.kill()
    downloading.wait()
    (left,) = _processes(tmp_path)
    assert _fetch(tmp_path) == 2
    assert f"another process is writing {tmp_path / 'out'}: wait" in capsys.readouterr().err
    assert _processes(tmp_path) == [left]


def _processes(folder):
    """Those with `folder` in their command."""
    numbers = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    named = str(folder).encode()
    return [n for n in numbers if named in _content(pathlib.Path(f"/proc/{n}/cmdline"))]


def _content(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_parts_hold_whole_shards(listed, monkeypatch):
    monkeypatch.setattr(fetch, "_LIST_SHARDS", 1)
    _fetch(listed)
    lists = sorted((listed / "out" / "fetch" / "urls").glob("*.parquet"))
    assert [pyarrow.parquet.read_metadata(path).num_rows for path in lists] == [5, 5, 2]
    assert failures.rows_to_retry(listed / "out", 5).tolist() == [3, 8]
    again = pyarrow.concat_tables(failures.chosen(listed / "out", np.array([1, 8])))
    assert again["uid"].to_pylist() == ["u1", "u8"]


@pytest.mark.parametrize("rule", [["--min", "similarity=0.3"], ["--min_side", "512"]])
def test_a_second_pass_has_the_rules_of_the_first(tmp_path, rule, capsys):
    with pytest.raises(SystemExit):
        fetch.main(["--output", str(tmp_path), "--retry", *rule])
    assert f"{rule[0]} goes with --metadata" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["--retry", "--metadata", "a"], ["--metadata", "a", "--min_yield", "2"]]
)
def test_bad_arguments(tmp_path, arguments):
    with pytest.raises(SystemExit):
        fetch.main(["--output", str(tmp_path), *arguments])


class _Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.skipif(not shutil.which("img2dataset"), reason="needs img2dataset on the PATH")
def test_with_img2dataset_itself(tmp_path, picture, encoded):
    images = [encoded(picture(1600, 1200, seed=i)) for i in range(4)]
    for number, image in enumerate(images):
        (tmp_path / f"{number}.jpg").write_bytes(image if number != 2 else image[:5000])
    handler = lambda *given: _Server(*given, directory=str(tmp_path))  # noqa: E731
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_port}"
    addresses = [f"{root}/{name}.jpg" for name in ("0", "gone", "2", "3")]
    _write_list(tmp_path, addresses, images, face_bboxes=[[], [], [], [[0.1, 0.1, 0.9, 0.9]]])
    assert _fetch(tmp_path, program="img2dataset") == 0
    server.shutdown()
    assert _ledger(tmp_path / "out") == {
        "gone.jpg": "HTTP 404",
        "2.jpg": "hash mismatch: not the image that was listed",
    }
    assert _ingest(tmp_path / "out", tmp_path / "s") == 0
    opened = Store.open(tmp_path / "s")
    assert opened.read(0, 1, ["width"])["width"] == [1024] and opened.num_rows == 2
    assert download.tally(tmp_path / "out").arrived == 2
