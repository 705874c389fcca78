# SPDX-License-Identifier: Apache-2.0
"""What captions say is so: nouns, colours, sizes and relations are read back and recomputed."""

import itertools
import re

import cv2
import numpy as np

from tools.scenes.classes.catalog import CLASSES
from tools.scenes.materials import COLOR_SYNONYMS, COLORS, SIZES
from tools.scenes.sample import make_sample
from tools.scenes.sentences import RELATIONS, caption

_NOUNS = {name: i for i, kind in enumerate(CLASSES) for name in kind.names}
_NOUN = re.compile(r"\b(" + "|".join(sorted(_NOUNS, key=len, reverse=True)) + r")\b")
_CLAIMS = {words: kind for kind, group in RELATIONS.items() for words in group}
_COLOR_OF = {word: color for color in COLORS for word in COLOR_SYNONYMS.get(color, (color,))}


def _mentions(text):
    return [(match.span(), _NOUNS[match[1]]) for match in _NOUN.finditer(text)]


def _claims(text):
    """(class, relation, class) triples of a caption."""
    mentions = _mentions(text)
    for (first, a), (second, b) in itertools.pairwise(mentions):
        between = text[first[1] : second[0]]
        for words, kind in _CLAIMS.items():
            if f" {words} " in between and not (kind == "left" and f"to the {words}" in between):
                yield (mentions[0][1] if between.startswith(" and ") else a), kind, b


def _adjectives(text, span):
    """The words before a noun, back to its article."""
    return re.split(r"\ban? ", text[: span[0]])[-1].split()


def test_captions_name_the_main_object_and_only_labelled_things(test_scenes):
    for scene in test_scenes:
        named = [class_id for _, class_id in _mentions(scene.caption)]
        labelled = [_NOUNS[_NOUN.findall(phrase)[-1]] for phrase in scene.phrases]
        assert scene.class_id in named
        assert set(named) <= set(labelled) and len(set(named)) == len(named)


def test_relations_hold_in_the_picture(test_scenes):
    checked = dict.fromkeys(RELATIONS, 0)
    for scene in test_scenes:
        boxes = {
            _NOUNS[_NOUN.findall(phrase)[-1]]: box
            for box, phrase in zip(scene.boxes, scene.phrases, strict=True)
        }
        for a, kind, b in _claims(scene.caption):
            checked[kind] += 1
            across = (boxes[b][0] + boxes[b][2]) - (boxes[a][0] + boxes[a][2])
            farther = _mean_depth(scene, b) - _mean_depth(scene, a)
            assert {
                "left": across > 0,
                "right": across < 0,
                "front": farther > 0,
                "behind": farther < 0,
                "near": True,
            }[kind], scene.caption
    assert checked["front"] + checked["behind"] > 3 and checked["left"] + checked["right"] > 3


def _mean_depth(scene, class_id):
    return scene.metric_depth[scene.segmentation == class_id + 1].mean()


def test_adjectives_are_those_of_the_thing(test_scenes):
    colors = sizes = 0
    for scene in test_scenes:
        sample = make_sample(0, "test", scene.index, 64)
        identities = {t.identity.class_id: t.identity for t in sample.scene.things}
        named = [identities[class_id] for _, class_id in _mentions(scene.caption)]
        for span, class_id in _mentions(scene.caption):
            words = _adjectives(scene.caption, span)
            found = [_COLOR_OF[word] for word in words if word in _COLOR_OF]
            assert set(found) <= {identities[class_id].color}
            colors += len(found)
            for word in set(words) & set(SIZES):
                sizes += 1
                others = [SIZES[other.size] for other in named]
                assert identities[class_id].size == word
                assert SIZES[word] < max(others) if word == "small" else SIZES[word] > min(others)
    assert colors >= len(test_scenes) and sizes > 3


def test_named_colors_are_seen(test_scenes):
    """Hue of the pixels of main objects that have one."""
    shares = []
    for scene in test_scenes:
        sample = make_sample(0, "test", scene.index, 64)
        color = sample.scene.things[0].identity.color
        if color in ("white", "black"):
            continue
        pixels = scene.image[scene.segmentation == scene.class_id + 1]
        shares.append((abs(_hue(pixels) - _hue_of(color) + 90) % 180 - 90 < 14).mean())
    assert len(shares) > 20
    assert np.quantile(shares, 0.1) > 0.15
    assert np.median(shares) > 0.4


def _hue(pixels):
    """Hue [n] in OpenCV's [0, 180) of saturated pixels; others are far from every hue."""
    hsv = cv2.cvtColor(pixels[None], cv2.COLOR_RGB2HSV)[0].astype(int)
    return np.where(hsv[:, 1] > 80, hsv[:, 0], 1000)


def _hue_of(color):
    coded = np.sqrt(np.array(COLORS[color])) * 255
    return _hue(coded.astype(np.uint8)[None])[0]


def test_captions_are_distinct(test_scenes):
    """None of 150 twice: equal pairs are so rare that a gallery of 500 loses one or two."""
    texts = [scene.caption for scene in test_scenes]
    for index in range(len(texts), 150):
        sample = make_sample(0, "test", index, 32)
        texts.append(caption(sample.words, sample.seen, sample.scene.surroundings, 1.0))
    assert len(set(texts)) == 150
