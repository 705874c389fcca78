# SPDX-License-Identifier: Apache-2.0
"""Named parts: the vocabulary in which the object classes are written down.

An object is a list of parts in its own frame: z is up, the ground is z = 0, the front looks along
+x; lengths are in any unit, since `model.fit` scales the whole. A part that has its name to itself
is a keypoint of the object (the seat of a chair); parts that share a name are interchangeable (the
legs of a table) and are none.
"""

import dataclasses

import numpy as np

from tools.scenes import shapes
from tools.scenes.shapes import Shape
from tools.scenes.vectors import Array

Vector = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Part:
    """One solid of an object.

    Attributes:
        name: what it is called within the object.
        shape: the solid in its local frame.
        frame: [3, 4] float, local to object coordinates.
        accent: painted in the object's second, neutral colour.
    """

    name: str
    shape: Shape
    frame: Array
    accent: bool = False

    def moved(self, motion: Array) -> "Part":
        """This part after the affine `motion` [3, 4]."""
        return dataclasses.replace(self, frame=compose(motion, self.frame))


def compose(outer: Array, inner: Array) -> Array:
    """The affine map [3, 4] that applies `inner`, then `outer`."""
    linear = outer[:, :3] @ inner
    linear[:, 3] += outer[:, 3]
    return linear


def invert(frame: Array) -> Array:
    """The inverse [3, 4] of an affine map [3, 4]."""
    linear = np.linalg.inv(frame[:, :3])
    return np.concatenate([linear, -linear @ frame[:, 3:]], axis=1)


def rotation(axis: str, degrees: float) -> Array:
    """Rotation [3, 3] about "x", "y" or "z", counterclockwise seen against the axis."""
    angle = np.deg2rad(degrees)
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[second, first] = np.sin(angle)
    matrix[first, second] = -np.sin(angle)
    return matrix


def turned(parts: list[Part], axis: str, degrees: float, about: Vector = (0, 0, 0)) -> list[Part]:
    """`parts` rotated about the line through `about` along `axis`."""
    matrix = rotation(axis, degrees)
    shift = np.array(about) - matrix @ np.array(about)
    return [part.moved(np.column_stack([matrix, shift])) for part in parts]


def shifted(parts: list[Part], offset: Vector) -> list[Part]:
    """`parts` moved by `offset`."""
    return [part.moved(np.column_stack([np.eye(3), offset])) for part in parts]


def ball(name: str, center: Vector, radii: Vector | float, *, accent: bool = False) -> Part:
    """An ellipsoid."""
    return Part(name, shapes.ball(), _scaled(center, radii), accent)


def dome(
    name: str,
    center: Vector,
    radii: Vector | float,
    *,
    low: float = 0.0,
    high: float = 1.0,
    hollow: bool = False,
    accent: bool = False,
) -> Part:
    """The slice low <= z <= high, in radii, of an ellipsoid; hollow, it is a shell."""
    return Part(name, shapes.ball(low, high, capped=not hollow), _scaled(center, radii), accent)


def box(name: str, center: Vector, size: Vector, *, accent: bool = False) -> Part:
    """A box with the given full side lengths."""
    return Part(name, shapes.BOX, _scaled(center, _half(size)), accent)


def prism(name: str, center: Vector, size: Vector, *, accent: bool = False) -> Part:
    """A gable roof of the given extent: ridge along y, at the top."""
    return Part(name, shapes.PRISM, _scaled(center, _half(size)), accent)


def wedge(name: str, center: Vector, size: Vector, *, accent: bool = False) -> Part:
    """A ramp of the given extent: highest at its -x end, running down to +x."""
    return Part(name, shapes.WEDGE, _scaled(center, _half(size)), accent)


def rod(
    name: str,
    start: Vector,
    end: Vector,
    radius: float,
    *,
    tip: float | None = None,
    open_end: bool = False,
    accent: bool = False,
) -> Part:
    """A cylinder from `start` to `end`, or a cone: `tip` is the radius at `end`.

    Open, it shows its inside there.
    """
    tip = radius if tip is None else tip
    widest = max(radius, tip)
    shape = shapes.frustum(radius / widest, tip / widest, cap_high=not open_end)
    low, high = np.array(start, float), np.array(end, float)
    frame = np.column_stack([_basis(high - low) * [widest, widest, 0.5], (low + high) / 2])
    frame[:, 2] *= np.linalg.norm(high - low)
    return Part(name, shape, frame, accent)


def ring(
    name: str,
    center: Vector,
    radius: float,
    tube: float,
    *,
    axis: Vector = (0, 0, 1),
    toward: Vector = (0, 1, 0),
    arc: float = 360.0,
    accent: bool = False,
) -> Part:
    """A torus about `axis`; with `arc` degrees less than 360, the arc around its `toward` side."""
    outer = radius + tube
    shape = shapes.Torus(radius / outer, tube / outer, np.deg2rad(arc / 2))
    frame = np.column_stack([np.cross(toward, axis), toward, axis]) * outer
    return Part(name, shape, np.column_stack([frame, center]), accent)


def _half(size: Vector) -> Vector:
    return (size[0] / 2, size[1] / 2, size[2] / 2)


def _scaled(center: Vector, radii: Vector | float) -> Array:
    return np.column_stack([np.diag(np.broadcast_to(np.array(radii, float), 3)), center])


def _basis(direction: Array) -> Array:
    """An orthonormal, right-handed basis [3, 3] whose third column points along `direction`."""
    z = direction / np.linalg.norm(direction)
    helper = np.array([1.0, 0, 0]) if abs(z[0]) < 0.9 else np.array([0, 1.0, 0])
    x = np.cross(helper, z)
    x /= np.linalg.norm(x)
    return np.column_stack([x, np.cross(z, x), z])
