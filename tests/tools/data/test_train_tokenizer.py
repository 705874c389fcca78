# SPDX-License-Identifier: Apache-2.0
"""A tokenizer out of the captions of a store."""

import numpy as np
import pytest
import sentencepiece

from input_pipeline import store
from mtv_jax.core.fields import CAPTION, IMAGE
from tools.data import train_tokenizer

_ROWS = 40


@pytest.fixture
def path(tmp_path):
    """Forty captions; only the last ten have a zebra."""
    path = tmp_path / "made"
    animals = ["cat", "dog", "horse", "zebra"]
    rows = [
        {"key": str(row), "caption": f"A {animals[row // 10]} number {row}, on the grass!"}
        for row in range(_ROWS)
    ]
    store.write_shard(path, store.BASE, 0, rows)
    store.finish_store(path, "made", [CAPTION], {})
    store.write_selection(path, "cats", np.arange(10))
    return path


def _train(path, *options):
    output = path.parent / "out" / "tokenizer.model"
    arguments = ["--store", str(path), "--output", str(output), "--vocab_size", "60", *options]
    status = train_tokenizer.main(arguments)
    return status, output


def _read_rows(path, monkeypatch, *options):
    """The rows whose captions were trained on."""
    read = []
    monkeypatch.setattr(
        train_tokenizer,
        "canonicalize",
        lambda text, make=train_tokenizer.canonicalize: read.append(text) or make(text),
    )
    assert _train(path, *options)[0] == 0
    return [int(text.split()[3].rstrip(",")) for text in read]


def test_the_model_reads_its_captions(path, capsys):
    status, output = _train(path)
    model = sentencepiece.SentencePieceProcessor(model_file=str(output))
    assert status == 0 and model.vocab_size() <= 60
    assert capsys.readouterr().out == f"{output}: {model.vocab_size()} ids\n"
    assert (model.pad_id(), model.eos_id(), model.unk_id(), model.bos_id()) == (0, 1, 2, -1)
    ids = model.encode("a zebra on the grass")
    assert 2 not in ids and model.decode(ids) == "a zebra on the grass"
    before = output.read_bytes()
    assert _train(path)[0] == 0 and output.read_bytes() == before


@pytest.mark.parametrize(("limit", "count"), [("1", 1), ("30", 30), ("40", 40), ("99", 40)])
def test_at_most_limit_rows_are_read_from_end_to_end(path, monkeypatch, limit, count):
    rows = _read_rows(path, monkeypatch, "--limit", limit)
    assert len(rows) == len(set(rows)) == count
    assert count == 1 or (rows[0], rows[-1]) == (0, _ROWS - 1)


def test_a_selection_is_all_that_is_read(path, monkeypatch):
    assert _read_rows(path, monkeypatch, "--selection", "cats") == list(range(10))


def test_bad_records_are_skipped_and_counted(path, monkeypatch, capsys):
    shard = store.shard_path(path, store.BASE, 0)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert len(_read_rows(path, monkeypatch)) == _ROWS - 1
    errors = capsys.readouterr().err
    assert errors.startswith(f"note: {path}: 1 of 40 records cannot be read, the first: ")
    assert "payload checksum" in errors and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--vocab_size", "3"], "error: --vocab_size 3: "),
        (["--selection", "dogs"], "has no selection 'dogs' (it has: cats)"),
        (["--output", "/proc/no/tokenizer.model"], "cannot write /proc/no"),
    ],
)
def test_bad_use_gets_one_line(path, capsys, options, expected):
    assert _train(path, *options)[0] == 2
    errors = capsys.readouterr().err
    assert expected in errors and errors.count("\n") == 1


@pytest.mark.parametrize("fields", [[IMAGE], [IMAGE, CAPTION]])
def test_a_store_without_captions_gets_one_line(tmp_path, capsys, fields):
    path = tmp_path / "silent"
    store.write_shard(path, store.BASE, 0, [{"key": "0", "image": b"x"}])
    store.finish_store(path, "silent", fields, {})
    assert _train(path)[0] == 2
    errors = capsys.readouterr().err
    assert f"no captions in {path}" in errors and errors.count("\n") == 1


@pytest.mark.parametrize("option", ["--limit", "--vocab_size"])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_numbers_are_at_least_one(path, capsys, option, value):
    with pytest.raises(SystemExit) as caught:
        _train(path, option, value)
    assert caught.value.code == 2
    assert f"{option} is at least 1" in capsys.readouterr().err


def test_help_keeps_its_lines(capsys):
    with pytest.raises(SystemExit):
        train_tokenizer.main(["--help"])
    printed = capsys.readouterr().out
    assert printed.startswith("usage: python -m tools.data.train_tokenizer ")
    assert "\n    python -m tools.data.train_tokenizer --store STORE" in printed
