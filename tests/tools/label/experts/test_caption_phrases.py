# SPDX-License-Identifier: Apache-2.0
"""Phrases of captions: runs of words that say something."""

import numpy as np
import pytest

from tools.data.depth_values import Rejected
from tools.label.base import Sample
from tools.label.experts.caption_phrases import CaptionPhrases, phrases


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("A red double-decker bus on the street", ["red double-decker bus", "street"]),
        ("Sunset over mountains; a very old wooden church (2004)",
         ["sunset", "mountains", "old wooden church"]),
        ("the big old red brick house", ["red brick house"]),
        ("man's dog - man's dog, DOG", ["man dog", "dog"]),
        ("x y z of a b", ["x y z", "b"]),
        ("über die straße", ["über die straße"]),
        ("the cat’s toy: it’s a cafe\u0301", ["cat toy", "café"]),
        ("of the and", []),
    ],
)  # fmt: skip
def test_phrases(caption, found):
    """The last three words of a run; each phrase once; no single letters."""
    wanted = [phrase for phrase in found if len(phrase) > 1]
    assert phrases(caption, 3) == wanted


def test_rows_without_a_phrase_say_why():
    labeller = CaptionPhrases(name="c", max_tags=1).load("")
    black = np.zeros((1, 1, 3), np.uint8)

    def prepare(**columns):
        return labeller.prepare(Sample(key="k", image=black, columns=columns))

    prepared = prepare(caption=[b"a dog and a cat"])
    (result,) = labeller.infer([prepared])
    assert labeller.finish(prepared, result).labels == {"caption_tags": ["dog"]}
    with pytest.raises(Rejected, match="no caption"):
        prepare()
    with pytest.raises(Rejected, match="a caption without phrases"):
        prepare(caption=[b"of the"])
