# SPDX-License-Identifier: Apache-2.0
"""A pinhole camera: x right, y down, z forward; pixel (0, 0) covers [0, 1) x [0, 1)."""

import dataclasses
from functools import cached_property

import numpy as np

from tools.scenes.vectors import Array


@dataclasses.dataclass(frozen=True)
class Camera:
    """Where the camera stands and what it sees.

    Attributes:
        rotation: [3, 3] world to camera.
        position: [3] in the world.
        focal: in pixels, the same for both axes.
        width: of the image in pixels.
        height: of the image in pixels.
    """

    rotation: Array
    position: Array
    focal: float
    width: int
    height: int

    @property
    def pose(self) -> Array:
        """World to camera [4, 4]."""
        pose = np.eye(4)
        pose[:3, :3] = self.rotation
        pose[:3, 3] = -self.rotation @ self.position
        return pose

    @property
    def intrinsics(self) -> Array:
        """(fx, fy, cx, cy) in pixels."""
        return np.array([self.focal, self.focal, self.width / 2, self.height / 2])

    @cached_property
    def ray_matrix(self) -> Array:
        """[3, 3] float32: (column, row, 1) to the world ray that gains 1 in depth per unit."""
        fx, fy, cx, cy = self.intrinsics
        unproject = np.array([[1 / fx, 0, -cx / fx], [0, 1 / fy, -cy / fy], [0, 0, 1]])
        return (self.rotation.T @ unproject).astype(np.float32)

    def project(self, points: Array) -> Array:
        """World points [3, n] to (column, row, depth) [3, n]; only depth > 0 is in view."""
        x, y, depth = self.rotation @ (points - self.position[:, None])
        columns = self.focal * x / depth + self.width / 2
        rows = self.focal * y / depth + self.height / 2
        return np.stack([columns, rows, depth])


def look_at(position: Array, target: Array) -> Array:
    """Rotation [3, 3], world to camera, of an upright camera at `position` facing `target`."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])
