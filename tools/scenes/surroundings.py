# SPDX-License-Identifier: Apache-2.0
"""Where objects stand: grounds, walls and skies, muted so that colour words mean objects."""

import dataclasses

import numpy as np

from tools.scenes.vary import Vary
from tools.scenes.vectors import Array

Color = tuple[float, ...]  # linear RGB

GROUNDS = {
    "grass": ("on grass", "on the lawn", "on green grass"),
    "sand": ("on sand", "on the sand", "on a sandy beach"),
    "snow": ("on snow", "in the snow", "on snowy ground"),
    "asphalt": ("on asphalt", "on a gray road", "on the street"),
    "planks": ("on a wooden floor", "on wooden planks", "on floorboards"),
    "tiles": ("on a tiled floor", "on tiles", "on checkered tiles"),
    "paving": ("on a brick pavement", "on paving bricks", "on a brick floor"),
    "carpet": ("on a carpet", "on the rug", "on a soft carpet"),
}
BACKDROPS = {
    "clear sky": ("under a blue sky", "under a clear sky", "on a sunny day"),
    "cloudy sky": ("under a cloudy sky", "under gray clouds", "on a cloudy day"),
    "sunset": ("at sunset", "in the evening", "under an orange sky"),
    "night": ("at night", "under a dark sky", "in the dark of night"),
    "plaster": ("in front of a plain wall", "by a plain wall", "against a plain wall"),
    "brick wall": ("in front of a brick wall", "by a brick wall", "against a brick wall"),
    "wallpaper": (
        "in front of striped wallpaper",
        "by a striped wall",
        "against striped wallpaper",
    ),
}
WALLS = ("plaster", "brick wall", "wallpaper")

# Linear RGB at the horizon and at the zenith.
_SKIES = {
    "clear sky": ((0.54, 0.59, 0.65), (0.33, 0.42, 0.58)),
    "cloudy sky": ((0.50, 0.51, 0.53), (0.40, 0.41, 0.43)),
    "sunset": ((0.60, 0.47, 0.38), (0.36, 0.33, 0.40)),
    "night": ((0.14, 0.15, 0.19), (0.08, 0.09, 0.13)),
}


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """Ground and backdrop of one scene.

    Attributes:
        ground: a key of GROUNDS.
        backdrop: a key of BACKDROPS.
        tones: [3, 3] linear RGB, the muted tones of ground, wall and carpet.
        turn: direction of planks and tiles, radians.
        shift: offset of all textures.
    """

    ground: str
    backdrop: str
    tones: Array
    turn: float
    shift: float

    @property
    def has_wall(self) -> bool:
        return self.backdrop in WALLS


def draw_surroundings(vary: Vary) -> Surroundings:
    """Random surroundings; ground and backdrop are independent."""
    tones = []
    for _ in range(3):
        level = vary.between(0.29, 0.46)
        tones.append([level * vary.between(0.9, 1.1) for _ in range(3)])
    return Surroundings(
        ground=vary.pick(tuple(GROUNDS)),
        backdrop=vary.pick(tuple(BACKDROPS)),
        tones=np.array(tones, np.float32),
        turn=vary.between(0, np.pi),
        shift=vary.between(0, 50),
    )


def sky_color(surroundings: Surroundings, directions: Array) -> Array:
    """Linear RGB [3, n] seen along unit directions [3, n]; walls reflect as an overcast sky."""
    name = surroundings.backdrop if surroundings.backdrop in _SKIES else "cloudy sky"
    horizon, zenith = (np.array(c, np.float32)[:, None] for c in _SKIES[name])
    rise = np.sqrt(np.clip(directions[2], 0.0, 1.0))
    color = horizon + (zenith - horizon) * rise
    if name == "night":
        return color
    x, y = directions[:2] / (np.abs(directions[2]) + np.float32(0.12))
    cover = 0.5 if name == "cloudy sky" else 0.25
    clouds = np.clip((_noise(x, y, surroundings.shift, 0.5) - 0.6 + cover) * 3, 0, 1) * rise
    return color + (np.float32(0.7) - color) * (np.float32(0.5) * clouds)


def ground_color(surroundings: Surroundings, points: Array, depth: Array) -> Array:
    """Linear RGB [3, n] of the ground at world points [3, n] seen from `depth` [n]."""
    cos, sin = np.cos(surroundings.turn), np.sin(surroundings.turn)
    u = np.float32(cos) * points[0] + np.float32(sin) * points[1] + np.float32(surroundings.shift)
    v = np.float32(cos) * points[1] - np.float32(sin) * points[0] + np.float32(surroundings.shift)
    # Detail finer than a pixel is faded out, else it would flicker in the distance.
    detail = 1 / (1 + (depth / 9) ** 2)
    return _GROUND_TEXTURES[surroundings.ground](surroundings, u, v, detail)


def wall_color(surroundings: Surroundings, local: Array, depth: Array) -> Array:
    """Linear RGB [3, n] of the wall at points [3, n] of its frame: along it, up, out of it."""
    along, height, _ = local
    detail = 1 / (1 + (depth / 14) ** 2)
    u = along + np.float32(surroundings.shift)
    tone = surroundings.tones[1][:, None]
    if surroundings.backdrop == "brick wall":
        return _bricks(u * 2.2, height * 5.0, detail, (0.38, 0.27, 0.23), (0.42, 0.41, 0.39))
    if surroundings.backdrop == "wallpaper":
        stripe = (u * 2.0) % 1.0 < 0.5
        return tone * (1 - stripe * (0.15 * np.clip(detail * 2, 0, 1)))
    return tone * (1 + 0.12 * (_noise(u, height, 0.0, 0.7) - 0.5))


def _grass(surroundings: Surroundings, u: Array, v: Array, detail: Array) -> Array:
    blades = _noise(u, v, surroundings.shift, 6.0) - 0.5
    patches = _noise(u, v, surroundings.shift, 0.35) - 0.5
    return _tinted((0.25, 0.34, 0.19), 1 + 0.5 * blades * detail + 0.2 * patches)


def _sand(surroundings: Surroundings, u: Array, v: Array, detail: Array) -> Array:
    ripples = np.sin(7 * u + 3 * _noise(u, v, surroundings.shift, 0.5)) * 0.04
    grains = 0.15 * (_noise(u, v, surroundings.shift, 9.0) - 0.5)
    return _tinted((0.47, 0.41, 0.31), 1 + (ripples + grains) * detail)


def _snow(surroundings: Surroundings, u: Array, v: Array, detail: Array) -> Array:
    drifts = 0.1 * (_noise(u, v, surroundings.shift, 0.6) - 0.5)
    return _tinted((0.55, 0.57, 0.60), 1 + drifts * (0.5 + 0.5 * detail))


def _asphalt(surroundings: Surroundings, u: Array, v: Array, detail: Array) -> Array:
    grains = 0.35 * (_noise(u, v, surroundings.shift, 11.0) - 0.5)
    patches = 0.15 * (_noise(u, v, surroundings.shift, 0.4) - 0.5)
    return _tinted((0.22, 0.22, 0.23), 1 + grains * detail + patches)


def _planks(surroundings: Surroundings, u: Array, v: Array, detail: Array) -> Array:
    row = np.floor(v * 3.2)
    tone = (row * np.float32(0.618) + np.floor(u * 0.7 + row * 0.37) * np.float32(0.377)) % 1.0
    grain = _noise(u * 0.15, v, surroundings.shift, 7.0) - 0.5
    gap = (v * 3.2) % 1.0 < 0.05
    light = (0.9 + 0.2 * tone + 0.2 * grain * detail) * (1 - gap * (0.35 * detail))
    return _tinted((0.37, 0.28, 0.20), light)


def _tiles(surroundings: Surroundings, u: Array, v: Array, detail: Array) -> Array:
    x, y = u * 1.8, v * 1.8
    dark = (np.floor(x) + np.floor(y)) % 2
    grout = np.minimum(x % 1.0, y % 1.0) < 0.05
    fade = np.clip(2.5 * detail, 0, 1)
    return surroundings.tones[0][:, None] * (1.1 - dark * (0.2 * fade) - grout * (0.2 * detail))


def _paving(surroundings: Surroundings, u: Array, v: Array, detail: Array) -> Array:
    return _bricks(u * 2.5, v * 5.0, detail, (0.33, 0.26, 0.23), (0.29, 0.28, 0.27))


def _carpet(surroundings: Surroundings, u: Array, v: Array, detail: Array) -> Array:
    pile = 0.25 * (_noise(u, v, surroundings.shift, 8.0) - 0.5)
    return surroundings.tones[2][:, None] * (1 + pile * detail)


def _bricks(x: Array, y: Array, detail: Array, brick: Color, mortar: Color) -> Array:
    """Running bond: unit-wide bricks in unit-high rows, every other row shifted by half."""
    row = np.floor(y)
    x = x + 0.5 * (row % 2)
    tone = (np.floor(x) * np.float32(0.618) + row * np.float32(0.414)) % 1.0
    joint = ((x % 1.0 < 0.06) | (y % 1.0 < 0.12)) * np.clip(1.6 * detail, 0, 1)
    bricks = _tinted(brick, 0.9 + 0.2 * tone)
    return bricks + (np.array(mortar, np.float32)[:, None] - bricks) * joint.astype(np.float32)


_GROUND_TEXTURES = {
    "grass": _grass,
    "sand": _sand,
    "snow": _snow,
    "asphalt": _asphalt,
    "planks": _planks,
    "tiles": _tiles,
    "paving": _paving,
    "carpet": _carpet,
}


def _tinted(color: Color, light: Array) -> Array:
    return np.array(color, np.float32)[:, None] * light.astype(np.float32)


def _make_noise(side: int) -> Array:
    """A tileable [side, side] texture in [0, 1] with spectrum 1/f and mean 0.5."""
    white = np.random.default_rng(0).standard_normal((side, side))
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(side) * side] * 2))
    pink = np.fft.ifft2(np.fft.fft2(white) / np.maximum(frequency, 2.0)).real
    return np.clip(0.5 + 0.22 * pink / pink.std(), 0, 1).astype(np.float32)


_NOISE_SIDE = 256
_NOISE = _make_noise(_NOISE_SIDE)


def _noise(u: Array, v: Array, shift: float, frequency: float) -> Array:
    """Noise [n] in [0, 1] at (u, v), detailed down to about 1 / (16 `frequency`) units."""
    scale = np.float32(frequency * 16)
    x = np.floor((u + np.float32(shift)) * scale).astype(np.int32) & (_NOISE_SIDE - 1)
    y = np.floor(v * scale).astype(np.int32) & (_NOISE_SIDE - 1)
    return _NOISE.ravel().take(y * _NOISE_SIDE + x)
