# SPDX-License-Identifier: Apache-2.0
"""Solids that a ray can be intersected with in closed form: lathes, polyhedra and tori.

Each shape lives in a local frame and fits the cube [-1, 1]^3, so that the eight corners of the
cube bound it on the screen and in the light. An origin may be a single point [3, 1, 1] against
many directions (camera rays) or the other way round (shadow rays). Rays need no unit direction:
`t` counts in units of the direction's length, and is infinite where the ray misses.
"""

import dataclasses
from typing import Protocol

import numpy as np

from tools.scenes.vectors import Array, dot, norm

NEAR = np.float32(1e-3)  # hits closer than this belong to the surface the ray starts on
_FAR = np.float32(np.inf)
_CIRCLE = np.stack([np.cos(np.arange(12) * np.pi / 6), np.sin(np.arange(12) * np.pi / 6)])


class Shape(Protocol):
    """What a renderer needs of a solid, all in the local frame."""

    @property
    def anchor(self) -> Array:
        """The point [3] that stands for the solid as a keypoint."""
        ...

    @property
    def outline(self) -> Array:
        """Points [3, m] on the surface that reach about as far as it does in any direction."""
        ...

    def intersect(self, origin: Array, direction: Array) -> Array:
        """First `t` > NEAR at which origin + t * direction meets the surface, else inf."""
        ...

    def normal(self, points: Array) -> Array:
        """Outward normals [3, n], of any length, at surface points [3, n]."""
        ...


@dataclasses.dataclass(frozen=True)
class Lathe:
    """x^2 + y^2 = q0 + q1 z + q2 z^2 for low <= z <= high: ball, cylinder, cone, frustum, dome.

    Attributes:
        profile: (q0, q1, q2), the squared radius as a polynomial in z.
        low: lower end of z.
        high: upper end of z.
        cap_low: whether a disc closes the lower end; an open end shows the inside.
        cap_high: whether a disc closes the upper end.
    """

    profile: tuple[float, ...]
    low: float = -1.0
    high: float = 1.0
    cap_low: bool = True
    cap_high: bool = True

    @property
    def anchor(self) -> Array:
        return np.array([0.0, 0.0, (self.low + self.high) / 2], np.float32)

    @property
    def outline(self) -> Array:
        q0, q1, q2 = self.profile
        z = np.linspace(self.low, self.high, 5)[:, None]
        radius = np.sqrt(np.maximum(q0 + (q1 + q2 * z) * z, 0))
        x, y = _CIRCLE
        return np.stack([radius * x, radius * y, z + 0 * x]).reshape(3, -1)

    def squared_radius(self, z: float) -> float:
        q0, q1, q2 = self.profile
        return q0 + (q1 + q2 * z) * z

    def intersect(self, origin: Array, direction: Array) -> Array:
        t = self._sides(origin, direction)
        ends = ((self.low, self.cap_low), (self.high, self.cap_high))
        for z in [z for z, capped in ends if capped and self.squared_radius(z) > 1e-6]:
            t = np.minimum(t, self._disc(z, origin, direction))
        return t

    @property
    def _convex(self) -> bool:
        """Whether a ray from outside can only enter by the nearer root (or a cap)."""
        closed_low = self.cap_low or self.squared_radius(self.low) <= 1e-6
        closed_high = self.cap_high or self.squared_radius(self.high) <= 1e-6
        return closed_low and closed_high and self.profile[2] <= 0

    def _sides(self, origin: Array, direction: Array) -> Array:
        q0, q1, q2 = (np.float32(q) for q in self.profile)
        ox, oy, oz = origin
        dx, dy, dz = direction
        a = dx * dx + dy * dy - q2 * (dz * dz)
        b = ox * dx + oy * dy - (q2 * oz + q1 / 2) * dz
        c = ox * ox + oy * oy - (q0 + (q1 + q2 * oz) * oz)
        root = np.sqrt(b * b - a * c)  # NaN where the ray misses: every comparison below is False
        best = _FAR
        for signed in (-root,) if self._convex else (-root, root):
            t = (signed - b) / a
            z = oz + t * dz
            inside = (t > NEAR) & (z >= self.low) & (z <= self.high)
            best = np.minimum(best, np.where(inside, t, _FAR))
        return best

    def _disc(self, z: float, origin: Array, direction: Array) -> Array:
        ox, oy, oz = origin
        dx, dy, dz = direction
        t = (np.float32(z) - oz) / dz
        x, y = ox + t * dx, oy + t * dy
        inside = (t > NEAR) & (x * x + y * y <= self.squared_radius(z))
        return np.where(inside, t, _FAR)

    def normal(self, points: Array) -> Array:
        _, q1, q2 = self.profile
        x, y, z = points
        side = np.stack([x, y, -(q1 / 2 + q2 * z)])
        radius2 = x * x + y * y
        for end, capped, sign in ((self.low, self.cap_low, -1), (self.high, self.cap_high, 1)):
            if capped and self.squared_radius(end) > 1e-6:
                on_cap = (np.abs(z - end) < 1e-3) & (radius2 < self.squared_radius(end) - 2e-3)
                side[:, on_cap] = np.array([[0.0], [0.0], [sign]], np.float32)
        return side


@dataclasses.dataclass(frozen=True)
class Polyhedron:
    """A convex body: the points with low <= n . p <= high for every slab (n, low, high)."""

    slabs: tuple[tuple[tuple[float, ...], float, float], ...]
    vertices: tuple[tuple[float, ...], ...] = ()

    @property
    def anchor(self) -> Array:
        return np.zeros(3, np.float32)

    @property
    def outline(self) -> Array:
        return np.array(self.vertices).T

    def intersect(self, origin: Array, direction: Array) -> Array:
        enter, leave = np.float32(-np.inf), _FAR
        for normal, low, high in self.slabs:
            along, start = _along(normal, direction), _along(normal, origin)
            first, second = (low - start) / along, (high - start) / along
            enter = np.maximum(enter, np.minimum(first, second))
            leave = np.minimum(leave, np.maximum(first, second))
        return np.where((enter <= leave) & (enter > NEAR), enter, _FAR)

    def normal(self, points: Array) -> Array:
        outward, gaps = [], []
        for normal, low, high in self.slabs:
            position = _along(normal, points)
            for sign, bound in ((-1.0, low), (1.0, high)):
                if np.isfinite(bound):
                    outward.append([sign * n for n in normal])
                    gaps.append(np.abs(position - bound))
        return np.array(outward, np.float32).T[:, np.argmin(gaps, axis=0)]


@dataclasses.dataclass(frozen=True)
class Torus:
    """A ring in the x-y plane, or the arc of it within `half_angle` of the y axis, round-ended.

    There is no cheap closed form for it, so rays march by the distance to it (Hart 1996).

    Attributes:
        radius: of the ring's centre line; radius + tube <= 1.
        tube: radius of the tube.
        half_angle: radians; pi is the whole ring.
    """

    radius: float
    tube: float
    half_angle: float = np.pi

    @property
    def anchor(self) -> Array:
        return np.array([0.0, self.radius, 0.0], np.float32)

    @property
    def outline(self) -> Array:
        angles = np.linspace(-self.half_angle, self.half_angle, 25)
        spine = self.radius * np.stack([np.sin(angles), np.cos(angles), 0 * angles])
        away = self.tube * np.concatenate(
            [spine / self.radius, [[0], [0], [1]] + 0 * spine], axis=1
        )
        twice = np.concatenate([spine, spine], axis=1)
        return np.concatenate([twice + away, twice - away], axis=1)

    def _spine(self, points: Array) -> Array:
        """The point [2, ...] of the centre line nearest to each of `points`, in x and y."""
        x, y = points[0], points[1]
        sin, cos = np.float32(np.sin(self.half_angle)), np.float32(np.cos(self.half_angle))
        length = np.maximum(np.hypot(x, y), np.float32(1e-9))
        on_arc = y >= cos * length
        spine_x = np.where(on_arc, x / length, np.copysign(sin, x))
        spine_y = np.where(on_arc, y / length, cos)
        return np.float32(self.radius) * np.stack([spine_x, spine_y])

    def _distance(self, points: Array) -> Array:
        gap = points[:2] - self._spine(points)
        squares = gap[0] * gap[0] + gap[1] * gap[1] + points[2] * points[2]
        return np.sqrt(squares) - np.float32(self.tube)

    def intersect(self, origin: Array, direction: Array) -> Array:
        shape = np.broadcast_shapes(origin.shape, direction.shape)
        start = np.broadcast_to(origin, shape).reshape(3, -1)
        rays = np.broadcast_to(direction, shape).reshape(3, -1)
        length = norm(rays)
        rays = rays / length
        # Rays that meet the bounding ball, from where they enter it.
        middle = -dot(start, rays)
        half = self.radius + self.tube
        reach = half * half - (dot(start, start) - middle * middle)
        t = np.full(middle.shape, _FAR)
        near = np.flatnonzero((reach > 0) & (middle * middle + reach > 0))
        t[near] = self._march(
            start[:, near], rays[:, near], np.maximum(middle[near] - np.sqrt(reach[near]), NEAR)
        )
        t[t > middle + half] = _FAR
        return (t / length).reshape(shape[1:])

    def _march(self, start: Array, rays: Array, t: Array) -> Array:
        distance = t
        for _ in range(24):
            distance = self._distance(start + t * rays)
            t = t + distance
        return np.where((distance < 2e-3) & (t > 10 * NEAR), t, _FAR)

    def normal(self, points: Array) -> Array:
        return np.concatenate([points[:2] - self._spine(points), points[2:]])


def _along(normal: tuple[float, ...], vectors: Array) -> Array:
    """normal . vectors, without the products that are zero."""
    products = [np.float32(n) * v for n, v in zip(normal, vectors, strict=True) if n]
    return sum(products[1:], start=products[0])


def frustum(low_radius: float, high_radius: float, *, cap_high: bool = True) -> Lathe:
    """Cylinder or cone along z with the given radii (at most 1) at z = -1 and z = 1."""
    mean, slope = (low_radius + high_radius) / 2, (high_radius - low_radius) / 2
    return Lathe((mean * mean, 2 * mean * slope, slope * slope), cap_high=cap_high)


def ball(low: float = -1.0, high: float = 1.0, *, capped: bool = True) -> Lathe:
    """Unit ball, or its part with low <= z <= high; uncapped it is a shell."""
    return Lathe((1.0, 0.0, -1.0), low, high, cap_low=capped, cap_high=capped)


_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_INF = float("inf")
_BASE = ((-1, -1, -1), (-1, 1, -1), (1, -1, -1), (1, 1, -1))

BOX = Polyhedron(
    ((_X, -1.0, 1.0), (_Y, -1.0, 1.0), (_Z, -1.0, 1.0)),
    (*_BASE, (-1, -1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, 1)),
)
_SLOPES = (((2.0, 0.0, 1.0), -_INF, 1.0), ((-2.0, 0.0, 1.0), -_INF, 1.0))
# Ridge along y at z = 1 above a square base.
PRISM = Polyhedron(((_Y, -1.0, 1.0), (_Z, -1.0, _INF), *_SLOPES), (*_BASE, (0, -1, 1), (0, 1, 1)))
# Right angle at x = -1, z = -1: a sail, a fin, a windscreen.
WEDGE = Polyhedron(
    ((_Y, -1.0, 1.0), (_Z, -1.0, _INF), (_X, -1.0, _INF), ((1.0, 0.0, 1.0), -_INF, 0.0)),
    (*_BASE, (-1, -1, 1), (-1, 1, 1)),
)
# Everything below z = 0: ground, and walls when turned.
HALF_SPACE = Polyhedron(((_Z, -_INF, 0.0),))
