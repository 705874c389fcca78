# SPDX-License-Identifier: Apache-2.0
"""Sums of verdicts."""

import collections
import json

from tools.data import funnel
from tools.data.funnel import Verdict
from tools.data.upstream import LostRow

_VERDICTS = [
    Verdict("a", funnel.WRITTEN, "", ("upright", "caption_markup")),
    Verdict("b", funnel.WRITTEN, "", ("upright",)),
    Verdict("c", funnel.WITHOUT_CAPTION),
    Verdict("d", funnel.REJECTED, "truncated"),
    Verdict("e", funnel.REJECTED, "truncated"),
    Verdict("f", funnel.REJECTED, "too_small"),
]


def test_sums_and_table():
    lost = [LostRow(key, "failed_to_download", None) for key in "xyz"]
    scored = collections.Counter(punsafe=2)
    first = funnel.Tally(_VERDICTS[:3], lost[:2], scored).report("0")
    second = funnel.Tally(_VERDICTS[3:], lost[2:], broken="broken at byte 7").report("1")
    assert (first.read, first.rows, second.read, second.rows) == (3, 3, 3, 0)
    summary = funnel.summarise([first, second])
    assert summary == {
        "read": 6,
        "written": 2,
        "written_without_caption": 1,
        "rejected": 3,
        "rejected_by_reason": {"too_small": 1, "truncated": 2},
        "changes": {"caption_markup": 1, "upright": 2},
        "columns": {"punsafe": 2},
        "failed_upstream": {"failed_to_download": 3},
        "broken_archives": {"1": "broken at byte 7"},
    }
    lines = {line.split("  ")[0]: line.split()[-1] for line in funnel.table(summary).splitlines()}
    assert lines["read"] == "6" and lines["rejected"] == "3"
    assert funnel.ShardReport(**json.loads(first.to_line())) == first


def test_a_verdict_survives_its_line():
    for verdict in _VERDICTS:
        content = json.loads(verdict.to_line())
        assert Verdict(**content | {"changes": tuple(content["changes"])}) == verdict
    assert "\n" not in Verdict("new\nline \udcff", funnel.REJECTED).to_line()[:-1]
