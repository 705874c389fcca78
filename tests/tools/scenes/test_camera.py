# SPDX-License-Identifier: Apache-2.0
"""The pinhole camera's two directions agree."""

import numpy as np

from tools.scenes.camera import Camera, look_at

_EYE = np.array([3.0, -2.0, 1.5])
_CAMERA = Camera(look_at(_EYE, np.array([0.0, 0.5, 0.4])), _EYE, 90.0, 64, 48)


def test_rays_pass_through_the_pixels_they_are_named_after():
    pixels = np.array([[0.5, 63.5, 20.0], [0.5, 10.0, 47.5], [1, 1, 1]])
    points = _EYE[:, None] + 2.5 * (_CAMERA.ray_matrix @ pixels)
    column, row, depth = _CAMERA.project(points)
    assert np.allclose(column, pixels[0], atol=1e-3) and np.allclose(row, pixels[1], atol=1e-3)
    assert np.allclose(depth, 2.5, atol=1e-5)


def test_pose_takes_the_world_to_the_camera():
    target = _CAMERA.pose @ [0.0, 0.5, 0.4, 1.0]
    assert np.allclose(target[:2], 0, atol=1e-9) and target[2] > 0
    above = _CAMERA.pose @ [0.0, 0.5, 1.4, 1.0]
    assert above[1] < 0  # y is down
    assert np.isclose(np.linalg.det(_CAMERA.rotation), 1)
