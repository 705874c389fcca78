# SPDX-License-Identifier: Apache-2.0
"""A store in two parts."""

import numpy as np
import pytest

from input_pipeline.store import Store, finish_store, write_shard
from mtv_jax.core.fields import Field
from tools.data import split


@pytest.fixture
def path(tmp_path):
    """A hundred rows."""
    write_shard(tmp_path, "images", 0, ({"key": str(i), "number": i} for i in range(100)))
    finish_store(tmp_path, "hundred", (Field(name="number", dtype="int32"),), {})
    return tmp_path


def _halves(path):
    opened = Store.open(path)
    return tuple(np.asarray(opened.selection(name)) for name in ("train", "heldout"))


def test_the_parts_are_the_whole(path, capsys):
    assert split.main([str(path), "--heldout", "30"]) == 0
    train, heldout = _halves(path)
    assert len(heldout) == 30 and "heldout, 30 rows" in capsys.readouterr().out
    np.testing.assert_array_equal(np.sort(np.concatenate([train, heldout])), np.arange(100))
    assert np.ptp(heldout) > 60, "spread over the store"


def test_the_seed_decides(path):
    drawn = []
    for seed in ("0", "0", "1"):
        split.main([str(path), "--heldout", "30", "--seed", seed])
        drawn.append(_halves(path)[1])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert set(drawn[0].tolist()) != set(drawn[2].tolist())


@pytest.mark.parametrize("count", ["0", "100", "101"])
def test_both_parts_have_rows(path, count, capsys):
    assert split.main([str(path), "--heldout", count]) == 2
    errors = capsys.readouterr().err
    assert f"cannot hold out {count} of 100" in errors and errors.count("\n") == 1


def test_a_store_that_cannot_be_written_is_one_line(path, capsys):
    (path / "selections").write_text("in the way")
    assert split.main([str(path), "--heldout", "30"]) == 2
    errors = capsys.readouterr().err
    assert errors == f"error: {path}/selections: File exists\n"
