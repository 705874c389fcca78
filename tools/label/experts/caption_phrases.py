# SPDX-License-Identifier: Apache-2.0
"""Tags without weights: the phrases of the caption, as runs of words that say something.

A run ends at punctuation and at function words (RAKE's candidates, Rose et al. 2010). Long runs
keep their last words, where English has the noun. No grammar is consulted, so verbs and adjectives
come along: a detector that finds nothing of the kind leaves them out.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import ClassVar

from mtv_jax.core.config import at_least
from mtv_jax.core.fields import CAPTION, Field
from tools.data.depth_values import Rejected
from tools.label.base import Labeller, Licence, Outcome, Sample
from tools.label.tagging import Tagger

_BREAK = re.compile(r"[^\w\s'-]|\d|_|\s-+\s", re.UNICODE)
_WORDS_OF_GRAMMAR = """
    a about above across after against all along also am among an and any are around as at away
    be because been before behind being below beneath beside besides between beyond both but by can
    could despite did do does doing down during each either else every few for from had has have
    having he her here hers him his how i if in inside into is it its itself just less like many may
    me might mine more most much must my near neither no nor not now of off on once one only onto or
    other our ours out outside over own per please same shall she should since so some such than
    that the their theirs them then there these they this those though through throughout to too
    toward towards under underneath until up upon us very via was we were what when where which
    while who whom whose why will with within without would yet you your yours
"""
_FUNCTION_WORDS = frozenset(_WORDS_OF_GRAMMAR.split())


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionPhrases(Tagger):
    """Tags from captions, the first ones of each, without probabilities.

    Attributes:
        max_words: of a tag.
    """

    sidecar: str = "caption_tags_v1"
    batch_size: int = at_least(1, 256)
    max_words: int = at_least(1, 3)

    kind: ClassVar[str] = "caption"
    sees: ClassVar[bool] = False

    @property
    def licence(self) -> Licence:
        return Licence(name="that of the captions", commercial=None)

    def emits(self) -> tuple[Field, ...]:
        return (self.tags,)

    def reads(self, columns: Collection[str]) -> tuple[str, ...]:
        del columns
        return (CAPTION.name,)

    def load(self, device: str) -> "_Phrases":
        del device
        return _Phrases(self)


class _Phrases(Labeller):
    def __init__(self, settings: CaptionPhrases):
        self._settings = settings

    def prepare(self, sample: Sample) -> list[str]:
        caption = sample.columns.get(CAPTION.name)
        if not caption:
            raise Rejected("no caption", "")
        text = bytes(caption[0]).decode(errors="replace")
        found = phrases(text, self._settings.max_words)[: self._settings.max_tags]
        if not found:
            raise Rejected("a caption without phrases", f"{text:.60}")
        return found

    def infer(self, prepared: Sequence[list[str]]) -> Sequence[None]:
        return [None] * len(prepared)

    def finish(self, prepared: list[str], result: None) -> Outcome:
        del result
        return Outcome(labels={self._settings.tags.name: prepared})


def phrases(caption: str, max_words: int) -> list[str]:
    """Lower-case phrases of a caption in their order, each once."""
    found: dict[str, None] = {}
    text = unicodedata.normalize("NFC", caption).replace("’", "'").lower()
    for clause in _BREAK.split(text):
        run: list[str] = []
        for word in [*clause.split(), "the"]:
            word = word.strip("'-").removesuffix("'s")
            if word and word not in _FUNCTION_WORDS:
                run.append(word)
            elif run:
                found[" ".join(run[-max_words:])] = None
                run = []
    return [phrase for phrase in found if len(phrase) > 1]
