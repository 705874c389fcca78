# SPDX-License-Identifier: Apache-2.0
"""Ray casting of several solids, and shadows."""

import numpy as np

from tools.scenes import parts, shapes, tracer
from tools.scenes.camera import Camera, look_at

_EYE = np.array([0.0, -4.0, 1.0])
_CAMERA = Camera(look_at(_EYE, np.array([0.0, 0.0, 0.5])), _EYE, 60.0, 48, 48)
_CENTRES = np.arange(48, dtype=np.float32) + 0.5


def _solid(part, owner=0):
    return tracer.Solid(part.shape, part.frame, owner, part)


def _soup():
    """The ground and forty small parts in disorder, a few beside and behind the camera."""
    rng = np.random.default_rng(3)
    solids = [tracer.Solid(shapes.HALF_SPACE, np.eye(3, 4), -1)]
    for owner in range(40):
        at = rng.uniform([-2, -6, 0], [2, 2, 1.2])
        end = tuple(at + rng.uniform(-0.4, 0.4, 3))
        kind = (
            parts.ball("a", tuple(at), (0.3, 0.1, 0.2)),
            parts.rod("b", tuple(at), end, 0.1, tip=0.03),
            parts.box("c", tuple(at), (0.2, 0.4, 0.1)),
            parts.ring("d", tuple(at), 0.2, 0.05, arc=200),
        )[owner % 4]
        solids.append(_solid(kind, owner))
    return solids


def test_depth_is_along_the_optical_axis():
    hits = tracer.trace(
        [_solid(parts.ball("b", (0, 0, 0.5), 0.5))], _CAMERA, _CENTRES, _CENTRES, 60
    )
    row, column = np.unravel_index(np.argmin(hits.depth), hits.depth.shape)
    nearest = np.linalg.norm(_EYE - [0, 0, 0.5]) - 0.5
    assert abs(hits.depth[row, column] - nearest) < 2e-3
    assert {row, column} <= {23, 24}
    assert (np.isfinite(hits.depth) == (hits.solid == 0)).all()


def test_culling_changes_nothing(monkeypatch):
    solids = _soup()
    culled = tracer.trace(solids, _CAMERA, _CENTRES, _CENTRES, 60)
    everything = (slice(0, 48), slice(0, 48))
    monkeypatch.setattr(tracer, "_window", lambda *_: everything)
    full = tracer.trace(solids, _CAMERA, _CENTRES, _CENTRES, 60)
    assert (culled.solid == full.solid).all()
    assert len(np.unique(culled.solid)) > 10


def test_the_sky_begins_beyond_far():
    ground = [tracer.Solid(shapes.HALF_SPACE, np.eye(3, 4), -1)]
    hits = tracer.trace(ground, _CAMERA, _CENTRES, _CENTRES, 6.0)
    assert hits.depth[np.isfinite(hits.depth)].max() < 6
    assert (hits.solid[0] == tracer.SKY).all() and (hits.solid[-1] == 0).all()


def test_shadow_falls_away_from_the_light():
    light = np.array([1, 0, 1], np.float32) / np.sqrt(np.float32(2))
    solids = [
        tracer.Solid(shapes.HALF_SPACE, np.eye(3, 4), -1),
        _solid(parts.box("b", (0, 0, 0.5), (1, 1, 1))),
    ]
    points = np.array([[-1.2, 0, 1e-3], [1.2, 0, 1e-3], [-1.2, 3, 1e-3], [-1.6, 0, 1e-3]]).T
    blocked = tracer.shadowed(solids, points.astype(np.float32), light, np.ones(4, bool))
    assert blocked.tolist() == [True, False, False, False]


def test_shadows_by_culling_equal_shadows_without():
    light = np.array([0.48, -0.6, 0.64], np.float32)
    solids = _soup()
    points = (
        np.random.default_rng(5).uniform([-3, -3, 0], [3, 3, 0], (3000, 3)).T.astype(np.float32)
    )
    blocked = tracer.shadowed(solids, points, light, np.ones(3000, bool))
    expected = np.zeros(3000, bool)
    with np.errstate(all="ignore"):
        for solid in solids[1:]:
            ray = (solid.to_local[:, :3] @ light)[:, None]
            expected |= np.isfinite(solid.shape.intersect(solid.localise(points), ray))
    assert 30 < blocked.sum() < 2000
    assert (blocked != expected).mean() < 1e-3
