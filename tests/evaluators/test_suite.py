# SPDX-License-Identifier: Apache-2.0
"""Numbers of several evaluators as one table."""

import json

from mtv_jax.evaluators.suite import format_table, with_chance, write_json

RESULTS = {"a": {"top1": 0.5, "top1/chance": 0.1, "images": 7.0}, "b": {"loss": float("nan")}}


def test_chance_levels_stand_beside_their_numbers(tmp_path):
    table = with_chance(RESULTS)
    assert table == {
        "a/top1": {"value": 0.5, "chance": 0.1},
        "a/images": {"value": 7.0, "chance": None},
        "b/loss": {"value": None, "chance": None},
    }
    write_json(tmp_path / "deep" / "t.json", table)
    text = (tmp_path / "deep" / "t.json").read_text()
    assert json.loads(text, parse_constant=lambda name: 1 / 0) == table, "NaN is not JSON"


def test_the_table_is_aligned_and_shows_ratios():
    lines = format_table(with_chance(RESULTS)).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["a/top1", "0.5000", "0.1000", "5.0"]
    assert lines[3].split() == ["b/loss", "-", "-", "-"]
