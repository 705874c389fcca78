# SPDX-License-Identifier: Apache-2.0
"""Captions and phrases that are true of the picture.

Only what shows is named: a colour that covers enough of the thing, a pattern of which both colours
are seen, a size that something else in the sentence contrasts with, a relation that holds by a
margin from where the camera stands.
"""

from collections.abc import Sequence

from tools.scenes.materials import COLOR_SYNONYMS, PATTERN_SYNONYMS, SIZES
from tools.scenes.surroundings import BACKDROPS, GROUNDS, Surroundings
from tools.scenes.vary import Vary
from tools.scenes.visibility import Sighting

RELATIONS = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "front": ("in front of",),
    "behind": ("behind",),
    "near": ("next to", "near", "beside"),
}
_INVERSE = {"left": "right", "right": "left", "front": "behind", "behind": "front", "near": "near"}

_OPENINGS = ("", "", "a photo of ", "a picture of ", "there is ")
_PAIRS = ("{a} {relation} {b}", "{a} {relation} {b}", "{b} {inverse} {a}")
_TRIPLES = (
    "{a} {relation} {b} and {relation_c} {c}",
    "{a} with {b} and {c}",
    "{b}, {c} and {a}",
)


def relation(left: Sighting, right: Sighting) -> str:
    """Where `left` is from `right` as the camera sees it: a key of RELATIONS."""
    across = (right.box[0] + right.box[2] - left.box[0] - left.box[2]) / 2
    widths = left.box[2] - left.box[0] + right.box[2] - right.box[0]
    if abs(across) > 0.4 * widths:
        return "left" if across > 0 else "right"
    farther = right.depth - left.depth
    if abs(farther) > 0.6 * (left.thing.footprint + right.thing.footprint):
        return "front" if farther > 0 else "behind"
    return "near"


def phrase(vary: Vary, sighting: Sighting) -> str:
    """What a box is labelled with: the class, every other time with its colour."""
    name = sighting.thing.identity.object_class.name
    if sighting.color_shown and vary.chance(0.5):
        return f"{sighting.thing.identity.color} {name}"
    return name


def caption(vary: Vary, seen: Sequence[Sighting], surroundings: Surroundings, detail: float) -> str:
    """A sentence about the main thing, up to two of the others, the ground and the backdrop.

    Args:
        vary: the choices of words.
        seen: the things that may be named, the main one first.
        surroundings: where they are.
        detail: probability of naming each thing that could be left out. The less is told of
            colours and grounds, the more it takes to know the classes.
    """
    others = [sighting for sighting in seen[1:] if vary.chance(detail)]
    named = [seen[0], *vary.pick_several(others, 2)]
    words = {
        letter: _noun_phrase(vary, sighting, named, detail)
        for letter, sighting in zip("abc", named, strict=False)
    }
    text = vary.pick(_OPENINGS) + vary.pick((("{a}",), _PAIRS, _TRIPLES)[len(named) - 1])
    if len(named) > 1:
        where = relation(named[0], named[1])
        words["relation"] = vary.pick(RELATIONS[where])
        words["inverse"] = vary.pick(RELATIONS[_INVERSE[where]])
    if len(named) > 2:
        words["relation_c"] = vary.pick(RELATIONS[relation(named[0], named[2])])
    places = (GROUNDS[surroundings.ground], BACKDROPS[surroundings.backdrop])
    ending = [vary.pick(phrases) for phrases in places if vary.chance(detail)]
    return " ".join([text.format(**words), *ending])


def _noun_phrase(vary: Vary, sighting: Sighting, company: Sequence[Sighting], detail: float) -> str:
    """Article, attributes and noun of one thing."""
    identity = sighting.thing.identity
    words = []
    if _size_contrasts(sighting, company):
        words.append(identity.size)
    if sighting.color_shown:
        words.append(vary.pick(COLOR_SYNONYMS.get(identity.color, (identity.color,))))
    if sighting.pattern_shown:
        words.append(vary.pick(PATTERN_SYNONYMS.get(identity.pattern, (identity.pattern,))))
    if identity.finish != "matte":
        words.append(identity.finish)
    words = [word for word in words if vary.chance(detail)]
    names = identity.object_class.names
    words.append(vary.pick((names[0], *names)))
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article, *words])


def _size_contrasts(sighting: Sighting, company: Sequence[Sighting]) -> bool:
    """Whether the thing is small beside a bigger one, or large beside a smaller one."""
    own = SIZES[sighting.thing.identity.size]
    others = [SIZES[other.thing.identity.size] for other in company]
    return (own == SIZES["small"] and max(others) > own) or (
        own == SIZES["large"] and min(others) < own
    )
