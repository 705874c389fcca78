# SPDX-License-Identifier: Apache-2.0
"""What a thing is called: its class and, independent of it, the words for its looks.

Some combinations of class, colour and pattern are held out: of the five patterns of every class in
every colour, one. The main object of a training scene is drawn uniformly from the others, that of
a test scene uniformly from those held out; lesser objects are never held-out combinations. Any two
of class, colour and pattern stay independent in both splits, so no attribute tells anything of the
class, and what the test asks for is to put together what was seen apart.
"""

import dataclasses
import itertools

from tools.scenes.classes.catalog import CLASSES, ObjectClass
from tools.scenes.materials import COLORS, FINISHES, PATTERNS, SIZES
from tools.scenes.vary import Vary


@dataclasses.dataclass(frozen=True)
class Identity:
    """Class and attributes of one thing.

    Attributes:
        class_id: index into CLASSES.
        color: a key of COLORS.
        pattern: one of PATTERNS.
        finish: one of FINISHES.
        size: a key of SIZES.
    """

    class_id: int
    color: str
    pattern: str
    finish: str
    size: str

    @property
    def object_class(self) -> ObjectClass:
        return CLASSES[self.class_id]


def held_out(class_id: int, color: str, pattern: str) -> bool:
    """Whether the combination is kept for the main objects of the test split."""
    shift = class_id + list(COLORS).index(color) + PATTERNS.index(pattern)
    return shift % len(PATTERNS) == 0


Combination = tuple[int, str, str]  # class, colour, pattern

_ALL = list(itertools.product(range(len(CLASSES)), COLORS, PATTERNS))
HELD_OUT = [combination for combination in _ALL if held_out(*combination)]
FREE = [combination for combination in _ALL if not held_out(*combination)]


def draw_identity(vary: Vary, combinations: list[Combination]) -> Identity:
    """An identity that is one of `combinations`, everything else independent."""
    class_id, color, pattern = vary.pick(combinations)
    return Identity(class_id, color, pattern, vary.pick(FINISHES), vary.pick(tuple(SIZES)))
