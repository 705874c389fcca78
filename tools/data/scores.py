# SPDX-License-Identifier: Apache-2.0
"""Columns of scores: what others have measured of a sample, kept so that a selection can use it.

Kept by default are the columns of LAION and of DataComp. A value that is no finite number (of
`nsfw`, no text) leaves the column out of that record.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import Field
from tools.data.captions import clean_caption

NUMBERS = (
    "clip_b32_similarity_score",
    "clip_l14_similarity_score",
    "similarity",
    "punsafe",
    "pwatermark",
    "aesthetic_score",
)
TEXTS = ("nsfw",)
DEFAULT = (*NUMBERS, *TEXTS)
_LARGEST = float(np.finfo(np.float32).max)


def names_to_keep(more: str, taken: Collection[str]) -> tuple[str, ...]:
    """The default columns and those of a comma-separated list, lower case.

    Raises:
        UserError: a name that cannot be a column, or that is `taken` by another.
    """
    names = [name.strip().lower() for name in more.split(",")] if more else []
    for name in names:
        if not re.fullmatch(r"[a-z0-9_.-]+", name) or name in taken:
            raise UserError(
                f"--keep_columns cannot keep {name!r}: want names of letters, digits and "
                f"underscores, parted by commas, other than {', '.join(sorted(taken))}"
            )
    return tuple(dict.fromkeys((*DEFAULT, *names)))


def kept(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | str]:
    """The columns of one record, in the order of `names`.

    Args:
        values: by name in any case: a number, a text, bytes, an array of one of them, or anything.
        names: what to keep, lower case.
    """
    by_name = {name.lower(): value for name, value in values.items()}
    found = {
        name: _text(by_name[name]) if name in TEXTS else _number(by_name[name])
        for name in names
        if name in by_name
    }
    return {name: value for name, value in found.items() if value is not None}


def fields(names: Collection[str]) -> list[Field]:
    """The declarations of kept columns."""
    return [Field(name=name, dtype="str" if name in TEXTS else "float32") for name in names]


def _number(value: Any) -> float | None:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and abs(number) <= _LARGEST else None


def _text(value: Any) -> str | None:
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return clean_caption(text).text or None if isinstance(text, str) else None
