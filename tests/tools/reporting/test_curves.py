# SPDX-License-Identifier: Apache-2.0
"""Charts show the points they are given, and stay small."""

import re
import xml.etree.ElementTree

import pytest

from tools.reporting.curves import Line, chart, thin


def _places(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'<polyline points="([^"]+)"', svg)
    return [[tuple(map(float, p.split(","))) for p in line.split()] for line in lines]


def test_larger_values_are_higher_and_later_ones_further_right():
    svg = chart("loss", [Line(label="a", points=[(0, 1.0), (50, 3.0), (100, 2.0)])])
    xml.etree.ElementTree.fromstring(svg)
    ((first, second, third),) = _places(svg)
    assert first[0] < second[0] < third[0]
    assert second[1] < third[1] < first[1]


def test_lines_share_their_axes():
    low = Line(label="low", points=[(0, 1.0), (10, 1.0)])
    high = Line(label="high", points=[(0, 9.0), (10, 9.0)], dashed=True)
    one, other = _places(chart("x", [low, high]))
    assert other[0][1] < one[0][1] and other[0][0] == one[0][0]


@pytest.mark.parametrize(
    "points", [[(1, 0.0)], [(1, 5.0), (2, 5.0)], [(5, -3e-9), (6, 2e-9)], [(1, 1e9), (2e6, 3e9)]]
)
def test_odd_ranges_stay_inside_the_frame(points):
    svg = chart("<loss> & more", [Line(label="", points=points), Line(label="none", points=[])])
    xml.etree.ElementTree.fromstring(svg)
    for x, y in _places(svg)[0]:
        assert 0 <= x <= 340 and 0 <= y <= 190


def test_long_curves_are_thinned_and_keep_their_shape():
    points = [(step, float(step >= 5000)) for step in range(10_000)]
    thinned = thin(points)
    assert len(thinned) <= 400 and thinned[-1] == points[-1]
    assert thinned[0][1] == 0.0 and sum(y for _, y in thinned) == pytest.approx(200, abs=2)
    assert thin(points[:300]) == points[:300]
