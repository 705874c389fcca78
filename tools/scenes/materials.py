# SPDX-License-Identifier: Apache-2.0
"""What objects are made of: colour, pattern and finish, each drawn without regard to the class.

Reflectances are linear RGB in [0, 1]. Patterns are solid textures: functions of the point in the
object's own frame, so they stick to it under any camera. A pattern is of the colour that names the
object and a lighter or darker shade of it.
"""

import dataclasses

import numpy as np

from tools.scenes.vary import Vary
from tools.scenes.vectors import Array, dot

COLORS = {
    "red": (0.66, 0.025, 0.03),
    "orange": (0.92, 0.25, 0.01),
    "yellow": (0.90, 0.68, 0.02),
    "green": (0.03, 0.36, 0.05),
    "turquoise": (0.03, 0.55, 0.50),
    "blue": (0.03, 0.10, 0.62),
    "purple": (0.23, 0.03, 0.42),
    "pink": (0.92, 0.27, 0.45),
    "white": (0.88, 0.88, 0.86),
    "black": (0.014, 0.014, 0.016),
}
COLOR_SYNONYMS = {"turquoise": ("turquoise", "teal"), "purple": ("purple", "violet")}
PATTERNS = ("plain", "striped", "checkered", "spotted", "marbled")
PATTERN_SYNONYMS = {
    "striped": ("striped", "stripy"),
    "checkered": ("checkered", "chequered"),
    "spotted": ("spotted", "dotted"),
}
FINISHES = ("matte", "shiny", "metallic")
SIZES = {"small": 0.65, "medium": 1.0, "large": 1.5}

_WHITE, _GRAY, _DARK = (0.82, 0.82, 0.80), (0.28, 0.28, 0.29), (0.035, 0.035, 0.038)
_SHADE = 0.3  # how far a pattern's second colour is from the first, towards white or dark
_AXES = ((0, 0, 1), (1, 0, 0), (0, 1, 0), (0.7, 0, 0.7), (0, 0.7, 0.7), (0.6, 0.6, 0.5))


@dataclasses.dataclass(frozen=True)
class Material:
    """How one object looks.

    Attributes:
        color: a key of COLORS, the object's own colour.
        pattern: one of PATTERNS.
        finish: one of FINISHES.
        second: linear RGB of the pattern's other colour.
        accent: linear RGB of the object's accent parts.
        axis: [3] direction of stripes and veins.
        period: length of one repetition, in the object's longest side.
        phase: [3] offset of the pattern.
    """

    color: str
    pattern: str
    finish: str
    second: tuple[float, ...]
    accent: tuple[float, ...]
    axis: tuple[float, ...]
    period: float
    phase: tuple[float, ...]


def draw_material(vary: Vary, color: str, pattern: str, finish: str) -> Material:
    """A material of that description, random in all it leaves open."""
    own = np.sqrt(COLORS[color])  # shades are mixed as the eye sees them
    toward = np.sqrt(_WHITE if own.mean() < 0.55 else _DARK)
    return Material(
        color=color,
        pattern=pattern,
        finish=finish,
        second=tuple((own + _SHADE * (toward - own)) ** 2),
        accent=_GRAY if color == "black" else _DARK,
        axis=vary.pick(_AXES),
        period=vary.between(0.16, 0.24),
        phase=(vary.between(0, 1), vary.between(0, 1), vary.between(0, 1)),
    )


def pattern_weight(material: Material, points: Array) -> Array:
    """Share [n] of the second colour at points [3, n] of the object's frame, longest side 1."""
    places = points / np.float32(material.period) + np.array(material.phase, np.float32)[:, None]
    if material.pattern == "plain":
        return np.zeros(points.shape[1], np.float32)
    weight = _PATTERN_FUNCTIONS[material.pattern](places, np.array(material.axis, np.float32))
    return weight.astype(np.float32)


def _stripes(places: Array, axis: Array) -> Array:
    return dot(axis, places) % 1.0 < 0.42


def _checks(places: Array, axis: Array) -> Array:
    del axis
    return np.floor(places * 1.3).astype(np.int32).sum(axis=0) & 1


def _spots(places: Array, axis: Array) -> Array:
    """Balls on a body-centred lattice, cut by the surface to round spots."""
    del axis
    lattice = places * 0.9
    corner = lattice - np.round(lattice)
    middle = lattice - np.floor(lattice) - np.float32(0.5)
    return np.minimum(dot(corner, corner), dot(middle, middle)) < 0.1


def _veins(places: Array, axis: Array) -> Array:
    x, y, z = places * np.float32(2.1)
    warp = np.sin(x + 1.7 * np.sin(z)) + np.sin(1.9 * y + x) + np.sin(1.6 * z + 1.3 * np.sin(y))
    wave = np.sin(np.float32(2.4) * dot(axis, places) + np.float32(1.6) * warp)
    return np.clip(1.0 - 2.2 * np.abs(wave), 0.0, 1.0)


_PATTERN_FUNCTIONS = {
    "striped": _stripes,
    "checkered": _checks,
    "spotted": _spots,
    "marbled": _veins,
}
