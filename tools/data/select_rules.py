# SPDX-License-Identifier: Apache-2.0
"""The rules of `tools.data.select`, in the order in which they are applied.

What needs no pixels comes first, so that images are decoded only of rows that are left. Duplicates
come after the captions, so that of two equal images the one whose caption is good can stay.
"""

import argparse
import functools
from collections.abc import Callable, Sequence

import numpy as np

from input_pipeline import store
from mtv_jax.core.errors import UserError, closest
from mtv_jax.core.fields import CAPTION, IMAGE
from mtv_jax.core.progress import Progress
from tools.data import caption_rules, conditions, digests, duplicates, facts
from tools.data.row_funnel import RowFunnel

# Of captions of 6 words and more that are nearly all English, 2 % have a lower probability of being
# so; sentences in German, French, Spanish or Dutch have one of 0.004 or less.
MIN_LANGUAGE_PROBABILITY = 0.02
LANGUAGE_FROM_WORDS = 6

Rule = Callable[[store.Store, argparse.Namespace, RowFunnel], None]


def _text(columns: facts.Columns) -> str:
    values = columns.get(CAPTION.name)
    return values[0].decode() if isinstance(values, list) and values else ""


def _measure_caption(columns: facts.Columns) -> tuple[int, ...]:
    return tuple(caption_rules.measure(_text(columns)))


def _probability(language: str, columns: facts.Columns) -> tuple[float]:
    return (caption_rules.probability(_text(columns), language),)


def _number(column: str, columns: facts.Columns) -> tuple[float]:
    values = columns.get(column, [])
    return (float(values[0]) if len(values) else np.nan,)


def _word(column: str, columns: facts.Columns) -> tuple[int]:
    values = columns.get(column)
    return (_code(values[0]) if isinstance(values, list) and values else 0,)


def _code(word: bytes) -> int:
    return digests.of_bytes(word) or 1


def _holds_more(columns: facts.Columns) -> tuple[bool]:
    return (len(columns) > 1,)


CAPTION_FACT = facts.Fact(
    "caption",
    _measure_caption,
    (("repeat", "u8"), ("words", "u2"), ("characters", "u2"), ("fault", "u1")),
    (CAPTION.name,),
)
DIGEST_FACT = facts.Fact("digest", duplicates.digest, (("value", "u8"),), (IMAGE.name,))
HASH_FACT = facts.Fact("phash", duplicates.perceptual_hash, (("value", "u8"),), (IMAGE.name,))


def label_fact(sidecar: str) -> facts.Fact:
    """Whether a sidecar holds more of a row than its key."""
    return facts.Fact(f"label.{sidecar}", _holds_more, (("value", "?"),), None, sidecar)


def language_fact(language: str) -> facts.Fact:
    """How likely the caption is in a language."""
    describe = functools.partial(_probability, language)
    return facts.Fact(f"language.{language}", describe, (("value", "f4"),), (CAPTION.name,))


def column_fact(condition: conditions.Condition) -> facts.Fact:
    """The value of a column; of words a digest, 0 where there is none."""
    describe = functools.partial(_number if condition.is_number else _word, condition.column)
    dtype = "f4" if condition.is_number else "u8"
    fields = (("value", dtype),)
    return facts.Fact(f"column.{condition.column}", describe, fields, (condition.column,))


def labels(opened: store.Store, arguments: argparse.Namespace, funnel: RowFunnel) -> None:
    """`--with` and `--without` sidecars."""
    for wanted, sidecars in ((True, arguments.having), (False, arguments.lacking)):
        for sidecar in sidecars:
            if sidecar not in opened.sidecars:
                raise UserError(
                    f"{opened.path} has no finished sidecar {sidecar!r}"
                    f"{closest(sidecar, opened.sidecars)}"
                )
            fact = label_fact(sidecar)
            facts.measure(opened, [fact], funnel.alive, label=sidecar, workers=arguments.workers)
            holds = facts.load(opened, fact)["value"]
            rule = f"{'without' if wanted else 'with'} labels in {sidecar}"
            funnel.take_out(rule, holds != wanted)


def readable(opened: store.Store, arguments: argparse.Namespace, funnel: RowFunnel) -> None:
    """Measures all that needs no pixels in one pass; a record that cannot be read goes."""
    wanted = _base_facts(opened, arguments)
    if not wanted:
        return
    rows = funnel.alive
    if arguments.max_repeats:  # counted over the store
        rows = np.ones(opened.num_rows, bool)
    facts.measure(opened, wanted, rows, label="records", workers=arguments.workers)
    _drop_unreadable(opened, wanted, funnel)


def columns(opened: store.Store, arguments: argparse.Namespace, funnel: RowFunnel) -> None:
    """`--min`, `--max` and `--only`."""
    for condition in conditions.parse(arguments):
        if condition.kind != "top":
            _apply(condition, opened, arguments, funnel)


def captions(opened: store.Store, arguments: argparse.Namespace, funnel: RowFunnel) -> None:
    """Length, boilerplate and repeats of captions."""
    if not _judges_captions(arguments):
        return
    caption = facts.load(opened, CAPTION_FACT)
    has = caption["repeat"] != 0
    if arguments.require_caption:
        funnel.take_out("no caption", ~has)
    if arguments.min_words:
        funnel.take_out("too few words", has & (caption["words"] < arguments.min_words))
    if arguments.max_words:
        funnel.take_out("too many words", has & (caption["words"] > arguments.max_words))
    if arguments.min_characters:
        few = has & (caption["characters"] < arguments.min_characters)
        funnel.take_out("too few characters", few)
    if arguments.no_boilerplate:
        for code, fault in enumerate(caption_rules.FAULTS[1:], 1):
            funnel.take_out(f"caption: {fault}", caption["fault"] == code)
    if arguments.max_repeats:
        _, places, counts = np.unique(caption["repeat"], return_inverse=True, return_counts=True)
        rule = f"caption on more than {arguments.max_repeats:,} rows"
        funnel.take_out(rule, has & (counts[places] > arguments.max_repeats))


def language(opened: store.Store, arguments: argparse.Namespace, funnel: RowFunnel) -> None:
    """`--language`."""
    if not arguments.language:
        return
    words = facts.load(opened, CAPTION_FACT)["words"]
    likely = np.zeros(opened.num_rows, np.float32)
    for code in arguments.language:
        likely += facts.load(opened, language_fact(code))["value"]
    other = likely < arguments.min_language_probability
    rule = f"not in {', '.join(arguments.language)}"
    funnel.take_out(rule, other & (words >= arguments.language_from_words))


def top(opened: store.Store, arguments: argparse.Namespace, funnel: RowFunnel) -> None:
    """`--top`: the best share of the rows that all rules above left."""
    for condition in conditions.parse(arguments):
        if condition.kind == "top":
            _apply(condition, opened, arguments, funnel)


def equal_images(opened: store.Store, arguments: argparse.Namespace, funnel: RowFunnel) -> None:
    """`--no_duplicates`: of equal bytes one row stays."""
    if not arguments.no_duplicates:
        return
    rows = _in_order(opened, arguments, funnel)
    values = facts.load(opened, DIGEST_FACT)["value"]
    _take_out(funnel, "duplicate", rows[duplicates.repeated(values[rows])])


def similar_images(opened: store.Store, arguments: argparse.Namespace, funnel: RowFunnel) -> None:
    """`--near_duplicates`: of images within so many bits one row stays."""
    distance = arguments.near_duplicates
    if distance is None:
        return
    rows = _in_order(opened, arguments, funnel)
    hashes = facts.load(opened, HASH_FACT)["value"][rows]
    progress = Progress("near-duplicates", duplicates.num_tables(distance), unit="tables")
    near = duplicates.nearly_repeated(hashes, distance, progress.show)
    _take_out(funnel, f"near-duplicate, {distance} bits", rows[near])


def take(opened: store.Store, arguments: argparse.Namespace, funnel: RowFunnel) -> None:
    """`--take`: so many rows at random."""
    if arguments.take is not None:
        funnel.take_random(arguments.take, arguments.seed)


IN_ORDER: tuple[Rule, ...] = (
    labels,
    readable,
    columns,
    captions,
    language,
    top,
    equal_images,
    similar_images,
    take,
)


def _judges_captions(arguments: argparse.Namespace) -> bool:
    names = ("min_words", "max_words", "min_characters", "max_repeats")
    flags = ("require_caption", "no_boilerplate", "language")
    return any(getattr(arguments, name) for name in (*names, *flags))


def _base_facts(opened: store.Store, arguments: argparse.Namespace) -> list[facts.Fact]:
    """What the rules need to know of the base records, pixels excepted."""
    wanted = conditions.parse(arguments)
    scalars = [field for field in opened.fields.values() if not (field.shape or field.codec)]
    words = {field.name for field in scalars if field.dtype == "str"}
    conditions.check_columns(
        wanted, {field.name for field in scalars} - words, words, str(opened.path)
    )
    found = {fact.name: fact for fact in map(column_fact, wanted)}
    if _judges_captions(arguments):
        if CAPTION.name not in opened.fields:
            raise UserError(f"{opened.path} has no captions: leave out the rules for them")
        found[CAPTION_FACT.name] = CAPTION_FACT
    for code in arguments.language:
        caption_rules.probability("known?", code)
        found[f"language {code}"] = language_fact(code)
    if arguments.near_duplicates is not None:
        duplicates.imagehash()  # fail before the work
    if _image_facts(arguments):  # of equal images one with a caption is to stay
        found[CAPTION_FACT.name] = CAPTION_FACT
    return list(found.values())


def _image_facts(arguments: argparse.Namespace) -> list[facts.Fact]:
    near = arguments.near_duplicates is not None
    return [DIGEST_FACT] * arguments.no_duplicates + [HASH_FACT] * near


def _drop_unreadable(
    opened: store.Store, measured: Sequence[facts.Fact], funnel: RowFunnel
) -> None:
    unreadable = np.zeros(opened.num_rows, bool)
    for fact in measured:
        unreadable |= facts.load(opened, fact)["state"] == facts.UNREADABLE
    if (funnel.alive & unreadable).any():
        funnel.take_out("cannot be read", unreadable)


def _apply(
    condition: conditions.Condition,
    opened: store.Store,
    arguments: argparse.Namespace,
    funnel: RowFunnel,
) -> None:
    values = facts.load(opened, column_fact(condition))["value"]
    if condition.is_number:
        fails, missing = condition.fails(values, funnel.alive), conditions.lacks(values)
    else:
        missing = values == 0
        fails = ~missing & ~np.isin(values, [_code(word.encode()) for word in condition.words])
    if arguments.missing == "drop":
        fails |= missing
    funnel.take_out(str(condition), fails, missing)


def _in_order(opened: store.Store, arguments: argparse.Namespace, funnel: RowFunnel) -> np.ndarray:
    """Measures the images that are left; their rows, those with a caption first: int64 [n]."""
    wanted = _image_facts(arguments)  # together: each image is read once
    facts.measure(opened, wanted, funnel.alive, label="images", workers=arguments.workers)
    _drop_unreadable(opened, wanted, funnel)
    rows = np.flatnonzero(funnel.alive)
    has_caption = facts.load(opened, CAPTION_FACT)["repeat"][rows] != 0
    return np.concatenate([rows[has_caption], rows[~has_caption]])


def _take_out(funnel: RowFunnel, rule: str, rows: np.ndarray) -> None:
    fails = np.zeros(len(funnel.alive), bool)
    fails[rows.astype(np.int64)] = True
    funnel.take_out(rule, fails)
