# SPDX-License-Identifier: Apache-2.0
"""What of each thing can be seen: decides which layouts are kept and which things are named."""

import dataclasses

import numpy as np

from tools.scenes.camera import Camera
from tools.scenes.layout import WALL, Scene, framed_share
from tools.scenes.render import FAR, Rendering
from tools.scenes.things import Thing
from tools.scenes.tracer import SKY, trace
from tools.scenes.vectors import Array

_MIN_SHARE = 0.35  # of a silhouette, below which a thing is neither boxed nor named
_MIN_PIXELS = 24
_MIN_COLOR = 0.2  # share of a thing's pixels that must show its own colour for it to be named


@dataclasses.dataclass(frozen=True)
class Silhouettes:
    """Coarse outlines of all things, as if each stood alone and as they cover each other.

    Attributes:
        alone: [things, h, w] bool.
        seen: [things, h, w] bool.
    """

    alone: Array
    seen: Array

    @property
    def shares(self) -> Array:
        """Visible share [things] of each silhouette; 0 for a thing outside the frame."""
        whole = self.alone.sum(axis=(1, 2))
        return self.seen.sum(axis=(1, 2)) / np.maximum(whole, 1)

    @property
    def box_areas(self) -> Array:
        """Area [things] of the box around what is seen, in images."""
        return np.array([_extent(seen.any(0)) * _extent(seen.any(1)) for seen in self.seen])


def _extent(line: Array) -> float:
    at = np.flatnonzero(line)
    return (at[-1] - at[0] + 1) / len(line) if len(at) else 0.0


def silhouettes(scene: Scene, camera: Camera) -> Silhouettes:
    """The silhouettes on every other pixel."""
    columns = np.arange(1, camera.width, 2, dtype=np.float32)
    rows = np.arange(1, camera.height, 2, dtype=np.float32)
    depths = []
    for owner in range(len(scene.things)):
        solids = [solid for solid in scene.solids if solid.owner == owner]
        depths.append(trace(solids, camera, columns, rows, FAR).depth)
    alone = np.isfinite(depths)
    nearest = np.argmin(depths, axis=0)
    return Silhouettes(alone, alone & (nearest == np.arange(len(depths))[:, None, None]))


def shows_well(scene: Scene, outlines: Silhouettes) -> bool:
    """Whether the main thing is in the frame, hardly covered and the biggest on the screen."""
    areas = outlines.box_areas
    return bool(
        areas[0] > 0.12
        and areas[0] > 1.3 * max(areas[1:], default=0)
        and outlines.shares[0] > 0.6
        and framed_share(scene.things[0], scene.camera) > 0.93
        and all(_stands_free(scene, camera) for camera in (scene.camera, scene.second_camera))
    )


def _stands_free(scene: Scene, camera: Camera) -> bool:
    """Whether the camera is outside all things and on this side of the wall."""
    clear = all(
        np.linalg.norm(camera.position - thing.center) > thing.radius + 0.1
        for thing in scene.things
    )
    walls = [solid for solid in scene.solids if solid.owner == WALL]
    return clear and all(wall.localise(camera.position)[2] > 0.1 for wall in walls)


@dataclasses.dataclass(frozen=True)
class Sighting:
    """A thing that shows well enough to be labelled, and what shows of it.

    Attributes:
        thing: the thing.
        box: [4] xyxy in [0, 1], tight around its visible pixels.
        depth: of its centre along the optical axis, metres.
        color_shown: whether its own colour covers enough of it to be named.
        pattern_shown: whether both colours of its pattern show.
    """

    thing: Thing
    box: Array
    depth: float
    color_shown: bool
    pattern_shown: bool


def sightings(scene: Scene, outlines: Silhouettes, rendering: Rendering) -> list[Sighting]:
    """The things to label, the main one first."""
    owners = owner_map(scene, rendering)
    found = []
    for owner, thing in enumerate(scene.things):
        seen = owners == owner
        share = outlines.shares[owner] * framed_share(thing, scene.camera)
        if share >= _MIN_SHARE and seen.sum() >= _MIN_PIXELS:
            found.append(_sighting(scene, thing, seen, rendering))
    return found


def owner_map(scene: Scene, rendering: Rendering) -> Array:
    """Index [h, w] of the thing seen in every pixel; negative where there is none."""
    owners = np.full(SKY + 1, -1)
    owners[: len(scene.solids)] = [solid.owner for solid in scene.solids]
    return owners[rendering.solid]


def _sighting(scene: Scene, thing: Thing, seen: Array, rendering: Rendering) -> Sighting:
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    height, width = seen.shape
    second = rendering.second_color[seen]
    own = (second < 0.5).mean()  # accents are NaN and count as neither
    other = (second >= 0.5).mean()
    return Sighting(
        thing=thing,
        box=np.array(
            [
                columns[0] / width,
                rows[0] / height,
                (columns[-1] + 1) / width,
                (rows[-1] + 1) / height,
            ]
        ),
        depth=float(scene.camera.project(thing.center[:, None])[2, 0]),
        color_shown=bool(own >= _MIN_COLOR),
        pattern_shown=bool(other >= 0.2 * own and other >= 0.08),
    )
