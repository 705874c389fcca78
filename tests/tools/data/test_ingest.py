# SPDX-License-Identifier: Apache-2.0
"""Ingest end to end: dirt, folders, refusals, resuming, kills."""

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from input_pipeline import decode, files
from input_pipeline.store import Store
from tools.data import ingest, verify

_ROOT = pathlib.Path(__file__).parents[3]
_SHARED = pathlib.Path(os.environ.get("MTV_SHARED_DATA", _ROOT.parent / "shared" / "data"))


def _run(source, output, *options):
    return ingest.main(["--input", str(source), "--output", str(output), *options])


def _verdicts(output):
    """Every line of the funnel by key, which must be there once."""
    lines = [
        json.loads(line)
        for path in sorted(output.glob("funnel-*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    verdicts = {line["key"]: line for line in lines}
    assert len(verdicts) == len(lines)
    return verdicts


def _rows(output):
    """Every row of a store by key."""
    opened = Store.open(output)
    rows = [opened.read(*opened.locate(row), opened.fields) for row in range(opened.num_rows)]
    return {row["key"][0].decode(): row for row in rows}


def _digests(output):
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }


def _summary(output):
    return json.loads((output / "funnel.json").read_text())


@pytest.fixture
def tars(tmp_path, picture, encoded, write_tar, sample_members):
    """Three clean tars of twelve samples each."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for shard in range(3):
        members = {}
        for number in range(12):
            key = f"{shard:05}{number:04}"
            image = encoded(picture(seed=100 * shard + number))
            members |= sample_members(key, image, f"caption {key}")
        write_tar(folder / f"{shard:05}.tar", members)
    return folder


def _dirty_members(picture, encoded, sample_members):
    """Members by name, and by key the expected outcome with the reason or the changes."""
    exif = Image.Exif()
    exif[0x0112] = 6
    good = encoded(picture(), quality=95)
    gray16 = Image.fromarray(np.tile(np.arange(96, dtype=np.uint16) * 600, (80, 1)))
    frames = [picture(14, 25, seed=seed) for seed in range(3)]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    progressive = encoded(picture().convert("L"), progressive=True)
    images = {
        "good": (good, "written", []),
        "same": (good, "written", []),
        "cmyk": (encoded(picture().convert("CMYK")), "written", ["from_cmyk"]),
        "png16": (encoded(gray16, "PNG"), "written", ["from_png", "from_16bit"]),
        "gif": (gif, "written", ["from_gif", "first_frame", "from_p", "enlarged"]),
        "turned": (encoded(picture(96, 64), exif=exif), "written", ["upright"]),
        "gray": (progressive, "written", ["from_l"]),
        "scan_cut": (good[: len(good) // 2], "rejected", "truncated"),
        "header_cut": (good[:180], "rejected", "truncated"),
        "nothing": (b"", "rejected", "empty_image"),
        "tiny": (encoded(picture(7, 5)), "rejected", "too_small"),
        "banner": (encoded(picture(512, 9)), "rejected", "extreme_aspect"),
        "web_page": (b"<html>404</html>", "rejected", "not_an_image"),
    }
    members, expected = {}, {}
    for key, (image, outcome, detail) in images.items():
        members |= sample_members(key, image, f"caption {key}")
        expected[key] = (outcome, detail)
    for key, (text, outcome, changes) in _dirty_texts().items():
        members |= sample_members(key, good, "Île")
        members[f"{key}.txt"] = text
        if key == "no_txt":
            del members["no_txt.txt"]
        if outcome == "written_without_caption":
            members[f"{key}.json"] = b'{"caption": ""}'
        expected[key] = (outcome, changes)
    return members, expected


def _dirty_texts():
    return {
        "blank": (b"", "written_without_caption", []),
        "no_txt": (b"", "written", ["caption_from_json"]),
        "latin": (b"\xcele", "written", ["caption_not_utf8", "caption_from_json"]),
        "long": (b"word " * 700, "written", ["caption_shortened"]),
        "html": (
            b"<b>axe</b>\v\xe2\x80\x8b",
            "written",
            ["caption_markup", "caption_control_characters"],
        ),
    }


def test_dirt_key_by_key(tmp_path, picture, encoded, write_tar, sample_members, capsys):
    members, expected = _dirty_members(picture, encoded, sample_members)
    write_tar(tmp_path / "00000.tar", members)
    rows = [("good", "success", None), ("gone", "failed_to_download", "404")]
    rows += [("lost", "success", None), ("bad", "failed_to_resize", "Image decoding error")]
    columns = dict(zip(("key", "status", "error_message"), zip(*rows, strict=True), strict=True))
    table = pyarrow.table({name: list(values) for name, values in columns.items()})
    pyarrow.parquet.write_table(table, tmp_path / "00000.parquet")
    output = tmp_path / "store"
    assert _run(tmp_path / "*.tar", output, "--min_side", "64") == 0

    found = {
        key: (v["outcome"], v["reason"] if v["outcome"] == "rejected" else v["changes"])
        for key, v in _verdicts(output).items()
    }
    assert found == expected
    summary = _summary(output)
    assert summary["read"] == len(expected)
    counts = [outcome for outcome, _ in expected.values()]
    for outcome in ("written", "written_without_caption", "rejected"):
        assert summary[outcome] == counts.count(outcome)
    assert summary["failed_upstream"] == {
        "failed_to_download": 1,
        "failed_to_resize": 1,
        "not_in_tar": 1,
    }
    assert '"key":"gone"' in (output / "upstream-00000.jsonl").read_text()
    printed = capsys.readouterr().out
    assert f"read{len(expected):>46}" in printed and "extreme_aspect" in printed

    stored = _rows(output)
    assert {key for key, (outcome, _) in expected.items() if outcome != "rejected"} == set(stored)
    assert stored["latin"]["caption"] == stored["no_txt"]["caption"] == ["Île".encode()]
    assert stored["html"]["caption"] == [b"axe"]
    assert "caption" not in stored["blank"]
    assert stored["good"]["image"] == stored["same"]["image"] == [members["good.jpg"]]
    turned = stored["turned"]
    assert (turned["height"].item(), turned["width"].item()) == (96, 64)
    assert decode.decode_image(turned["image"][0]).shape == (96, 64, 3)
    assert stored["gif"]["width"].item() == 64
    assert verify.main([str(output), "--workers", "1"]) == 0


def test_real_dirt_key_by_key(tmp_path):
    """The collected web shards: 4,691 samples, every deliberately dirty one by name."""
    if not (_SHARED / "dirt.json").exists():
        pytest.skip(f"no web shards: {_SHARED} is absent (set MTV_SHARED_DATA)")
    output = tmp_path / "store"
    assert _run(_SHARED / "train", output, "--min_side", "64") == 0
    verdicts = _verdicts(output)
    lost = {
        json.loads(line)["key"]
        for path in output.glob("upstream-*.jsonl")
        for line in path.read_text().splitlines()
    }
    expected = {
        "truncated_jpeg": ("rejected", "truncated"),
        "zero_byte_image": ("rejected", "empty_image"),
        "tiny_image": ("rejected", "too_small"),
        "extreme_aspect": ("rejected", "extreme_aspect"),
        "empty_caption": ("written_without_caption", ""),
    }
    entries = json.loads((_SHARED / "dirt.json").read_text())["entries"]
    entries = [entry for entry in entries if entry["split"] == "train"]
    for entry in entries:
        key = entry["key"]
        if entry["why"] == "failed_row":
            assert key in lost and key not in verdicts
            continue
        outcome = (verdicts[key]["outcome"], verdicts[key]["reason"])
        assert outcome == expected.get(entry["why"], ("written", "")), entry
    summary = _summary(output)
    assert summary["read"] == len(verdicts) == 4691
    assert summary["written"] + summary["written_without_caption"] + summary["rejected"] == 4691
    assert summary["rejected"] == sum(
        expected.get(entry["why"], ("",))[0] == "rejected" for entry in entries
    )
    assert len(lost) == summary["failed_upstream"]["failed_to_resize"] == 37


def test_one_tar_is_one_shard_in_the_same_order(tmp_path, tars):
    assert _run(tars, tmp_path / "small", "--min_side", "64", "--workers", "1") == 0
    opened = Store.open(tmp_path / "small")
    assert opened.shard_rows == (12, 12, 12)
    assert opened.read(1, 7, ["caption"])["caption"] == [b"caption 000010007"]
    assert opened.name == "small"


def test_the_store_does_not_depend_on_the_workers(tmp_path, tars):
    for workers in ("1", "2"):
        name = f"by_{workers}"
        options = ["--min_side", "64", "--name", "same", "--workers", workers]
        assert _run(tars, tmp_path / name, *options) == 0
    assert _digests(tmp_path / "by_1") == _digests(tmp_path / "by_2")


def test_keys_that_collide_get_the_name_of_their_tar(
    tmp_path, tars, picture, encoded, write_tar, sample_members
):
    again = sample_members("000010003", encoded(picture()), "again")
    write_tar(tars / "more.tar", again)
    assert _run(tars, tmp_path / "store", "--min_side", "64", "--workers", "1") == 0
    rows = _rows(tmp_path / "store")
    assert len(rows) == 37
    assert rows["more/000010003"]["caption"] == [b"again"]
    assert rows["00001/000010003"]["caption"] == [b"caption 000010003"]
    assert set(_verdicts(tmp_path / "store")) == set(rows)


def test_folder_of_images(tmp_path, picture, encoded, capsys):
    root = tmp_path / "photos"
    (root / "cats").mkdir(parents=True)
    for number in range(5):
        (root / "cats" / f"{number}.jpg").write_bytes(encoded(picture(seed=number)))
    (root / "plain.png").write_bytes(encoded(picture(), "PNG"))
    (root / "broken.jpg").write_bytes(b"\xff\xd8")
    (root / "vanished.jpg").symlink_to(root / "nowhere.jpg")
    (root / "cats" / "0.txt").write_text("A <i>cat</i>.")
    (root / "captions.csv").write_text("filename,caption\ncats/1.jpg,Another cat.\nplain.png,\n")
    output = tmp_path / "store"
    assert _run(root, output, "--min_side", "64", "--rows_per_shard", "3", "--workers", "1") == 0
    assert Store.open(output).shard_rows == (2, 3, 1)
    rows = _rows(output)
    captions = {key: row["caption"][0].decode() for key, row in rows.items() if "caption" in row}
    assert captions == {"cats/0.jpg": "A cat.", "cats/1.jpg": "Another cat."}
    assert _run(root, output, "--min_side", "64", "--rows_per_shard", "4", "--workers", "1") == 2
    assert "was begun with another rows_per_shard (see" in capsys.readouterr().err
    verdicts = _verdicts(output)
    assert verdicts["broken.jpg"]["reason"] == "truncated"
    assert verdicts["vanished.jpg"]["reason"] == "unreadable"
    assert verdicts["plain.png"]["outcome"] == "written_without_caption"
    assert verify.main([str(output), "--workers", "1"]) == 0


def test_scores_in_the_json_of_tars(tmp_path, picture, encoded, write_tar, sample_members, capsys):
    metadata = {
        "a": b'{"similarity": 0.25, "NSFW": "UNLIKELY", "punsafe": NaN, "Blur": 3, "url": "x"}',
        "b": b'{"similarity": "high", "punsafe": null}',
        "c": b"[" * 100_000,
        "d": b"[0.5]",
    }
    members = {}
    for key, content in metadata.items():
        members |= sample_members(key, encoded(picture()), "x") | {f"{key}.json": content}
    write_tar(tmp_path / "0.tar", members)
    output = tmp_path / "store"
    options = ["--min_side", "64", "--workers", "1", "--keep_columns", "blur,url"]
    assert _run(tmp_path / "0.tar", output, *options) == 0
    rows = _rows(output)
    scored = {
        key: set(row) - {"key", "image", "caption", "height", "width"} for key, row in rows.items()
    }
    assert scored == {"a": {"similarity", "nsfw", "blur"}, "b": set(), "c": set(), "d": set()}
    assert rows["a"]["similarity"] == np.float32(0.25) and rows["a"]["nsfw"] == [b"UNLIKELY"]
    assert list(Store.open(output).fields)[4:] == ["similarity", "nsfw", "blur"]
    printed = capsys.readouterr().out.splitlines()
    assert f"  blur{1:>44}" in printed
    assert f"  url{0:>45}" in printed, "asked for, and no sample has a number there"
    assert not any("pwatermark" in line for line in printed), "not asked for"
    assert verify.main([str(output), "--workers", "1"]) == 0


def test_scores_beside_images(tmp_path, picture, encoded):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(encoded(picture()))
    (tmp_path / "in/a.json").write_text('{"aesthetic_score": 6, "caption": "one"}')
    assert _run(tmp_path / "in", tmp_path / "store", "--min_side", "64") == 0
    row = _rows(tmp_path / "store")["a.jpg"]
    assert row["aesthetic_score"].dtype == np.float32 and row["aesthetic_score"].item() == 6
    assert row["caption"] == [b"one"]


def test_broken_tar_keeps_what_came_before_and_fails(tmp_path, tars, capsys):
    path = tars / "00001.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    output = tmp_path / "store"
    options = ["--min_side", "64", "--workers", "1"]
    assert _run(tars, output, *options) == 2
    errors = capsys.readouterr().err
    assert "00001: " in errors and "error: 1 of the input files are damaged" in errors
    rows = Store.open(output).shard_rows
    assert rows[0] == rows[2] == 12 and 0 < rows[1] < 12
    assert list(_summary(output)["broken_archives"]) == ["00001"]
    assert _run(tars, output, *options, "--allow_broken") == 0


@pytest.mark.parametrize(
    "case",
    ["no_match", "unwritable", "nothing_written", "nothing_there", "foreign", "plan", "busy"],
)
def test_bad_use_gets_one_line(tmp_path, tars, write_tar, capsys, case):
    source, output, options = tars, tmp_path / "store", ["--min_side", "64", "--workers", "1"]
    expected = {
        "no_match": "matches no .tar",
        "unwritable": "Not a directory",
        "nothing_written": "nothing was written: all 36 samples were rejected",
        "nothing_there": "nothing was written: the input holds no samples",
        "foreign": "holds a store that ingest did not make",
        "plan": "ingest.json cannot be read",
        "busy": "another process is writing",
    }[case]
    if case == "no_match":
        source = tmp_path / "absent" / "*.tar"
    elif case == "unwritable":
        output = tars / "00000.tar" / "store"
    elif case == "nothing_written":
        options = ["--min_side", "900", "--workers", "1"]
    elif case == "nothing_there":
        source = write_tar(tmp_path / "empty.tar", {})
    else:
        output.mkdir()
    if case == "foreign":
        (output / "images-00000.tfrecord").write_bytes(b"")
    if case == "plan":
        (output / "ingest.json").write_bytes(b"")
    holds = files.sole_writer(output if case == "busy" else tmp_path / "elsewhere")
    with holds:
        assert _run(source, output, *options) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1 and expected in errors[0]
    assert not (output / "store.json").exists()


@pytest.mark.parametrize(
    "options", [["--max_enlarge", "nan"], ["--max_enlarge", "0.9"], ["--rows_per_shard", "0"]]
)
def test_senseless_settings_are_refused(tmp_path, tars, options):
    with pytest.raises(SystemExit) as caught:
        _run(tars, tmp_path / "store", *options)
    assert caught.value.code == 2 and not (tmp_path / "store").exists()


@pytest.mark.parametrize("change", ["min_side", "keep_columns", "input", "times"])
def test_another_meaning_does_not_continue_a_store(tmp_path, tars, capsys, change):
    output = tmp_path / "store"
    assert _run(tars, output, "--min_side", "64", "--workers", "1") == 0
    before = _digests(output)
    options = ["--min_side", "48" if change == "min_side" else "64", "--workers", "1"]
    if change == "keep_columns":
        options += ["--keep_columns", "blur"]
    elif change == "input":
        (tars / "00002.tar").unlink()
    elif change == "times":
        os.utime(tars / "00002.tar", ns=(0, 0))
    assert _run(tars, output, *options) == 2
    what = "input" if change == "times" else change
    assert f"was begun with another {what}" in capsys.readouterr().err
    assert _digests(output) == before


def test_finished_shards_are_not_made_again(tmp_path, tars, monkeypatch):
    output = tmp_path / "store"
    options = ["--min_side", "64", "--workers", "1"]
    assert _run(tars, output, *options) == 0
    before = _digests(output)
    for name in ("store.json", "funnel.json", "funnel-00001.jsonl"):
        (output / name).unlink()
    made = []
    write_shard = ingest.store.write_shard

    def watch(directory, prefix, shard, rows):
        made.append(shard)
        return write_shard(directory, prefix, shard, rows)

    monkeypatch.setattr(ingest.store, "write_shard", watch)
    assert _run(tars, output, *options) == 0
    assert made == [1]
    assert _digests(output) == before


def test_killed_and_resumed_equals_undisturbed(tmp_path, tars):
    options = ["--min_side", "64", "--name", "same", "--workers"]
    assert _run(tars, tmp_path / "straight", *options, "1") == 0
    output = tmp_path / "killed"
    command = [sys.executable, "-m", "tools.data.ingest", "--input", str(tars)]
    command += ["--output", str(output), *options, "2"]

    def reach(shards):
        """Starts ingest and kills it when so many shards are there; whether it came to that."""
        process = subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if len(list(output.glob("images-*.tfrecord*"))) >= shards:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return True
            time.sleep(0.001)
        return False

    killed = [reach(shards) for shards in (1, 3)]
    assert killed[0]
    assert _run(tars, output, *options, "1") == 0
    assert _digests(output) == _digests(tmp_path / "straight")


def test_help_needs_no_jax():
    code = "import sys, tools.data.ingest as m; assert 'jax' not in sys.modules; m.main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--min_side" in done.stdout
