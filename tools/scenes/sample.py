# SPDX-License-Identifier: Apache-2.0
"""Makes scene number i of a split: a pure function of (seed, split, i)."""

import dataclasses

from tools.scenes.identity import FREE, HELD_OUT, draw_identity
from tools.scenes.layout import Plan, Scene, draw_scene
from tools.scenes.render import Rendering, render
from tools.scenes.surroundings import draw_surroundings
from tools.scenes.vary import Vary
from tools.scenes.visibility import Sighting, shows_well, sightings, silhouettes

SPLITS = ("train", "test")
_MAX_ATTEMPTS = 1000


@dataclasses.dataclass(frozen=True)
class Sample:
    """A scene that shows its main object, with the picture of its first camera.

    Attributes:
        split: one of SPLITS.
        index: number of the sample within its split.
        scene: what was rendered.
        rendering: picture and what is behind each pixel.
        seen: the things that show well enough to be labelled, the main one first.
        words: the stream of choices for captions and phrases.
    """

    split: str
    index: int
    scene: Scene
    rendering: Rendering
    seen: list[Sighting]
    words: Vary

    @property
    def key(self) -> str:
        return f"{self.split}-{self.index:07d}"


def make_sample(seed: int, split: str, index: int, size: int) -> Sample:
    """Scene `index` of `split`; its picture's short side has `size` pixels."""
    plan = draw_plan(seed, split, index, size)
    for attempt in range(1, _MAX_ATTEMPTS):
        scene = draw_scene(_stream(seed, split, index, attempt), plan)
        outlines = silhouettes(scene, scene.camera)
        if not shows_well(scene, outlines):
            continue
        rendering = render(scene, scene.camera)
        seen = sightings(scene, outlines, rendering)
        if seen and seen[0].thing is scene.things[0] and seen[0].color_shown:
            words = _stream(seed, split, index, _MAX_ATTEMPTS)
            return Sample(split, index, scene, rendering, seen, words)
    raise RuntimeError(f"no layout shows {plan.main} well")


def draw_plan(seed: int, split: str, index: int, size: int) -> Plan:
    """What scene `index` will be, before any layout is tried."""
    vary = _stream(seed, split, index, 0)
    main = draw_identity(vary, HELD_OUT if split == "test" else FREE)
    long_side = round(size * 4 / 3)
    width, height = vary.pick((*[(size, size)] * 4, (long_side, size), (size, long_side)))
    portrait = vary.chance(0.6)
    count = 1 if portrait else vary.pick((1, 1, 2, 2, 2, 3, 3, 4))
    return Plan(main, count, portrait, draw_surroundings(vary), width, height)


def _stream(seed: int, split: str, index: int, purpose: int) -> Vary:
    return Vary(seed, SPLITS.index(split), index, purpose)
