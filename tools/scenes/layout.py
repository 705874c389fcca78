# SPDX-License-Identifier: Apache-2.0
"""Draws scenes: which things, where they stand, who looks at them, under which light."""

import dataclasses

import numpy as np

from tools.scenes import shapes
from tools.scenes.camera import Camera, look_at
from tools.scenes.identity import FREE, Identity, draw_identity
from tools.scenes.parts import Vector, compose, rotation
from tools.scenes.surroundings import Surroundings
from tools.scenes.things import Thing, build
from tools.scenes.tracer import Solid
from tools.scenes.vary import Vary
from tools.scenes.vectors import Array

GROUND, WALL = -1, -2  # owners of solids that belong to no thing


@dataclasses.dataclass(frozen=True)
class Lights:
    """A sun that casts shadows, a weak fill light that does not, and light from everywhere.

    Attributes:
        sun: [3] unit vector towards the sun.
        sun_color: [3] linear RGB.
        fill: [3] unit vector towards the fill light.
        fill_color: [3] linear RGB.
        ambient: [3] linear RGB.
    """

    sun: Array
    sun_color: Array
    fill: Array
    fill_color: Array
    ambient: Array


@dataclasses.dataclass(frozen=True)
class Plan:
    """What of a scene is settled before layouts are tried, so that rejecting one biases nothing.

    Attributes:
        main: the main object.
        count: number of things wanted; some may find no place.
        portrait: whether the main object fills the frame and is seen from where it shows best.
        surroundings: where it stands.
        width: of the image in pixels.
        height: of the image in pixels.
    """

    main: Identity
    count: int
    portrait: bool
    surroundings: Surroundings
    width: int
    height: int


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything there is to render. things[0] is the main object."""

    things: list[Thing]
    surroundings: Surroundings
    lights: Lights
    solids: list[Solid]
    camera: Camera
    second_camera: Camera


def draw_scene(vary: Vary, plan: Plan) -> Scene:
    """A random layout of `plan`; whether its main object shows well is for others to judge."""
    main = build(vary, plan.main)
    camera, second_camera = _draw_cameras(vary, main, plan)
    things = _draw_others(vary, main, camera, plan.count)
    solids = [Solid(shapes.HALF_SPACE, np.eye(3, 4), GROUND)]
    if plan.surroundings.has_wall:
        solids.append(_draw_wall(vary, things, camera))
    for owner, thing in enumerate(things):
        solids += [Solid(p.shape, compose(thing.frame, p.frame), owner, p) for p in thing.parts]
    lights = _draw_lights(vary, camera, plan.surroundings)
    return Scene(things, plan.surroundings, lights, solids, camera, second_camera)


def _draw_others(vary: Vary, main: Thing, camera: Camera, count: int) -> list[Thing]:
    """`main` and up to count - 1 things around it, in view, each of a class of its own."""
    things = [main]
    for _ in range(3 * (count - 1)):
        identity = draw_identity(vary, FREE)
        if identity.class_id in {thing.identity.class_id for thing in things}:
            continue
        place = _free_place(vary, build(vary, identity), things, camera)
        things += [place] if place is not None else []
        if len(things) == count:
            break
    return things


def _free_place(vary: Vary, thing: Thing, things: list[Thing], camera: Camera) -> Thing | None:
    """`thing` moved to where it is in view, smaller than things[0] there, and touches nothing."""
    main_area = _box_area(things[0], camera)
    for _ in range(30):
        angle = vary.between(0, 2 * np.pi)
        distance = things[0].footprint + thing.footprint + vary.between(0.02, 1.8)
        moved = thing.shifted(distance * np.array([np.cos(angle), np.sin(angle), 0]))
        if (
            all(_apart(moved, other) for other in things)
            and _in_view(moved.center, camera)
            and np.linalg.norm(camera.position - moved.center) > moved.radius + 0.2
            and framed_share(moved, camera) > 0.6
            and 2.5 * _box_area(moved, camera) < main_area
        ):
            return moved
    return None


def _apart(left: Thing, right: Thing) -> bool:
    gap = np.linalg.norm((left.center - right.center)[:2])
    return bool(gap > left.footprint + right.footprint)


def _in_view(point: Array, camera: Camera) -> bool:
    column, row, depth = camera.project(point[:, None])[:, 0]
    return bool(depth > 0 and 0 < column < camera.width and 0 < row < camera.height)


def framed_share(thing: Thing, camera: Camera) -> float:
    """Share of a thing's outline that falls into the frame."""
    column, row, depth = camera.project(thing.outline)
    inside = (column > 0) & (column < camera.width) & (row > 0) & (row < camera.height)
    return float((inside & (depth > 0)).mean())


def _box_area(thing: Thing, camera: Camera) -> float:
    """Area of the projected bounding box in square pixels."""
    pixels = camera.project(thing.outline)[:2]
    return float(np.prod(np.ptp(pixels, axis=1)))


def _draw_cameras(vary: Vary, main: Thing, plan: Plan) -> tuple[Camera, Camera]:
    """Two cameras on the main thing, whose axes are 5 to 40 degrees apart."""
    half_fov = np.deg2rad(vary.between(14, 30))
    lens = Camera(
        rotation=np.eye(3),
        position=np.zeros(3),
        focal=float(min(plan.width, plan.height) / 2 / np.tan(half_fov)),
        width=plan.width,
        height=plan.height,
    )
    # Around three quarters: from behind a bed is a board, from the front a sail is a line.
    turn, rise = (25, 22) if plan.portrait else (60, 32)
    azimuth, elevation = main.heading + 60 + vary.between(-turn, turn), vary.between(8, rise)
    distance = 2.5 * main.radius / np.sin(half_fov)
    fill = vary.between(0.85, 0.95) if plan.portrait else vary.between(0.68, 0.9)
    for _ in range(2):  # what fills the frame shrinks about as the distance grows
        first = _orbit(lens, main.center, (azimuth, elevation, distance))
        pixels = first.project(main.outline)[:2]
        distance *= (np.ptp(pixels, axis=1) / [plan.width, plan.height]).max() / fill
    room = (1 - fill) / 2 * distance * np.tan(half_fov)
    target = main.center + room * np.array([vary.between(-1, 1) for _ in range(3)])
    first = _orbit(lens, target, (azimuth, elevation, distance))
    while True:
        orbit = (azimuth + vary.between(-45, 45), vary.between(5, 48), vary(distance, 0.1))
        second = _orbit(lens, target, orbit)
        if 5 < angle_between(first, second) < 40:
            return first, second


def _orbit(lens: Camera, target: Array, orbit: Vector) -> Camera:
    """`lens` at (azimuth, elevation) in degrees and distance from `target`, facing it."""
    azimuth, elevation = np.deg2rad(orbit[:2])
    away = _direction(azimuth, elevation).astype(np.float64)
    position = np.maximum(target + orbit[2] * away, [-np.inf, -np.inf, 0.1])
    return dataclasses.replace(lens, rotation=look_at(position, target), position=position)


def angle_between(left: Camera, right: Camera) -> float:
    """Angle of the two optical axes in degrees."""
    cosine = left.rotation[2] @ right.rotation[2]
    return float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))


def _draw_wall(vary: Vary, things: list[Thing], camera: Camera) -> Solid:
    """A wall behind all things, turned away from the camera by up to 30 degrees."""
    turn = rotation("z", vary.between(-30, 30))
    toward = turn @ (camera.position * [1, 1, 0])
    toward /= np.linalg.norm(toward)
    behind = max(thing.footprint - thing.center @ toward for thing in things)
    up = np.array([0.0, 0.0, 1.0])
    offset = -(behind + vary.between(0.1, 2.5)) * toward
    return Solid(
        shapes.HALF_SPACE, np.column_stack([np.cross(up, toward), up, toward, offset]), WALL
    )


def _draw_lights(vary: Vary, camera: Camera, surroundings: Surroundings) -> Lights:
    facing = np.arctan2(camera.position[1], camera.position[0])
    strength = 0.85 if surroundings.backdrop == "night" else 1.0
    warmth = vary.between(0.0, 0.1)
    sun = strength * vary.between(0.6, 0.8) * np.array([1, 1 - 0.5 * warmth, 1 - warmth])
    ambient = strength * vary.between(0.36, 0.5)
    return Lights(
        sun=_direction(facing + vary.between(-1.6, 1.6), vary.between(0.5, 1.2)),
        sun_color=sun.astype(np.float32),
        fill=_direction(facing + vary.between(-1.2, 1.2), vary.between(0.1, 0.9)),
        fill_color=np.float32(vary.between(0.1, 0.3)) * np.array([0.95, 1, 1.05], np.float32),
        ambient=np.array([ambient] * 3, np.float32),
    )


def _direction(azimuth: float, elevation: float) -> Array:
    flat = np.cos(elevation)
    return np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], np.float32)
