# SPDX-License-Identifier: Apache-2.0
"""Intersections and normals of the solids, against what geometry says."""

import numpy as np
import pytest

from tools.scenes import shapes

_SOLIDS = {
    "ball": shapes.ball(),
    "cylinder": shapes.frustum(0.9, 0.9),
    "cone": shapes.frustum(1.0, 0.0),
    "frustum": shapes.frustum(0.5, 1.0),
    "dome": shapes.ball(-0.2, 1.0),
    "box": shapes.BOX,
    "prism": shapes.PRISM,
    "wedge": shapes.WEDGE,
    "ring": shapes.Torus(0.7, 0.3),
    "arc": shapes.Torus(0.8, 0.2, np.deg2rad(100)),
}


def _inside(name, points):
    """Whether points [3, n] are inside, from the definition of each solid."""
    x, y, z = points
    flat = np.hypot(x, y)
    cube = (abs(x) <= 1) & (abs(y) <= 1) & (abs(z) <= 1)
    spine = np.clip(np.arctan2(x, y), -np.deg2rad(100), np.deg2rad(100))
    arc = np.stack([0.8 * np.sin(spine), 0.8 * np.cos(spine), 0 * spine])
    return {
        "ball": (points**2).sum(0) <= 1,
        "cylinder": (flat <= 0.9) & (abs(z) <= 1),
        "cone": (flat <= (1 - z) / 2) & (abs(z) <= 1),
        "frustum": (flat <= 0.75 + 0.25 * z) & (abs(z) <= 1),
        "dome": ((points**2).sum(0) <= 1) & (z >= -0.2),
        "box": cube,
        "prism": cube & (abs(x) <= (1 - z) / 2),
        "wedge": cube & (x + z <= 0),
        "ring": (flat - 0.7) ** 2 + z**2 <= 0.09,
        "arc": ((points - arc) ** 2).sum(0) <= 0.04,
    }[name]


def _rays(count=400):
    """Rays from a sphere of radius 3 to random points in and about the cube."""
    rng = np.random.default_rng(0)
    origins = rng.standard_normal((3, count))
    origins *= 3 / np.linalg.norm(origins, axis=0)
    directions = rng.uniform(-1.3, 1.3, (3, count)) - origins
    return origins.astype(np.float32), directions.astype(np.float32)


@pytest.mark.parametrize("name", _SOLIDS)
def test_first_hit_is_where_a_ray_enters(name):
    origins, directions = _rays()
    with np.errstate(all="ignore"):
        t = _SOLIDS[name].intersect(origins, directions)
    steps = np.linspace(0, 2, 2001)
    points = origins[:, None] + steps[:, None] * directions[:, None]
    inside = _inside(name, points)
    entered = np.where(inside.any(0), steps[inside.argmax(0)], np.inf)
    hit = np.isfinite(entered)
    assert 20 < hit.sum() < 400
    assert np.isfinite(t[hit]).mean() > 0.99  # a march may slip past an edge
    both = hit & np.isfinite(t)
    assert np.quantile(abs(t[both] - entered[both]), 0.99) < 3e-3
    assert (~hit & np.isfinite(t)).mean() < 0.01


@pytest.mark.parametrize("name", _SOLIDS)
def test_normals_point_out(name):
    origins, directions = _rays()
    with np.errstate(all="ignore"):
        t = _SOLIDS[name].intersect(origins, directions)
    hit = np.isfinite(t)
    points = (origins + t * directions)[:, hit]
    normals = _SOLIDS[name].normal(points)
    normals = normals / np.linalg.norm(normals, axis=0)
    assert (~_inside(name, points + 0.02 * normals)).mean() > 0.98
    assert _inside(name, points - 0.02 * normals).mean() > 0.95  # less at sharp edges


@pytest.mark.parametrize("name", _SOLIDS)
def test_outline_bounds_the_solid(name):
    rng = np.random.default_rng(1)
    points = rng.uniform(-1, 1, (3, 20000))
    inside = points[:, _inside(name, points)]
    outline = _SOLIDS[name].outline
    for axis in range(3):
        assert outline[axis].max() > inside[axis].max() - 0.05
        assert outline[axis].max() < inside[axis].max() + 0.2  # a sample rarely hits a tip


def test_an_open_end_shows_the_inside():
    down = np.array([[0.2], [0.0], [-1.0]], np.float32)
    above = np.array([[0.0], [0.0], [2.0]], np.float32)
    with np.errstate(all="ignore"):
        closed = shapes.frustum(1.0, 1.0).intersect(above, down)
        opened = shapes.frustum(1.0, 1.0, cap_high=False).intersect(above, down)
    assert closed == pytest.approx(1.0)  # the lid
    assert opened == pytest.approx(3.0)  # the floor
