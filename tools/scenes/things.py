# SPDX-License-Identifier: Apache-2.0
"""One object of a scene: its parts in one frame, its paint, its place."""

import dataclasses

import numpy as np

from tools.scenes.identity import Identity
from tools.scenes.materials import SIZES, Material, draw_material
from tools.scenes.parts import Part, rotation
from tools.scenes.vary import Vary
from tools.scenes.vectors import Array


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        identity: what it is.
        material: how it looks.
        parts: in the object's frame: longest side 1, centred over the origin, standing on z = 0.
        frame: [3, 4] object to world; a turn about z, a scaling and a shift.
        center: [3] centre of its bounding box in the world.
        radius: of a ball about `center` that holds it.
        footprint: radius of a circle on the ground that holds it.
        outline: points [3, m] in the world that reach as far as its surface does.
    """

    identity: Identity
    material: Material
    parts: list[Part]
    frame: Array
    center: Array
    radius: float
    footprint: float
    outline: Array

    @property
    def heading(self) -> float:
        """Direction of the front, in degrees counterclockwise from x."""
        return float(np.rad2deg(np.arctan2(self.frame[1, 0], self.frame[0, 0])))

    def shifted(self, offset: Array) -> "Thing":
        """This thing moved by `offset` [3]."""
        frame = np.column_stack([self.frame[:, :3], self.frame[:, 3] + offset])
        return dataclasses.replace(
            self,
            frame=frame,
            center=self.center + offset,
            outline=self.outline + offset[:, None],
        )


def build(vary: Vary, identity: Identity) -> Thing:
    """A thing standing on the origin, turned at random."""
    parts = _fitted(identity.object_class.build(vary))
    scale = vary(SIZES[identity.size], 0.08)
    outline = _outline(parts) * scale
    low, high = outline.min(axis=1), outline.max(axis=1)
    turn = rotation("z", vary.between(0, 360))
    return Thing(
        identity=identity,
        material=draw_material(vary, identity.color, identity.pattern, identity.finish),
        parts=parts,
        frame=np.column_stack([turn * scale, np.zeros(3)]),
        center=(low + high) / 2,
        radius=float(np.linalg.norm(high - low) / 2),
        footprint=float(np.linalg.norm((high - low)[:2]) / 2),
        outline=turn @ outline,
    )


def _fitted(parts: list[Part]) -> list[Part]:
    """`parts` centred over the origin, standing on z = 0, with longest side 1."""
    outline = _outline(parts)
    low, high = outline.min(axis=1), outline.max(axis=1)
    middle = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    motion = np.column_stack([np.eye(3), -middle]) / (high - low).max()
    return [part.moved(motion) for part in parts]


def _outline(parts: list[Part]) -> Array:
    """Points [3, m] that reach as far as the surfaces of `parts` do."""
    return np.concatenate(
        [part.frame[:, :3] @ part.shape.outline + part.frame[:, 3:] for part in parts], axis=1
    )
