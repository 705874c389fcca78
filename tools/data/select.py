# SPDX-License-Identifier: Apache-2.0
"""Chooses rows of a store to train on: `python -m tools.data.select STORE --name clean RULES`.

Writes STORE/selections/NAME.npy, which a config names
(`--config.input.stores.train.selection=NAME`), and NAME.json with the settings and what every rule
took out. The store stays as it is. Rules are applied in the order listed here, --top after the
captions. The result depends on the store and the rules alone. What was measured of the rows is kept
in STORE/selections/.facts: a stopped run goes on from there, and other rules on the same store need
no second look at the images.
"""

import argparse
import importlib.metadata
import json
import pathlib
import re
import sys
from collections.abc import Sequence

import numpy as np

from input_pipeline import files, store
from mtv_jax.core.errors import UserError, report_user_errors
from tools.data import conditions, duplicates, parallel, select_rules
from tools.data.row_funnel import RowFunnel

_NOT_RULES = {"store", "name", "overwrite", "workers"}
_GO_WITH = {
    "missing": tuple(conditions.KINDS),
    "min_language_probability": ("language",),
    "language_from_words": ("language",),
    "seed": ("take",),
}


def select(arguments: argparse.Namespace) -> RowFunnel:
    """Applies the rules, writes the selection and returns its funnel.

    Raises:
        UserError: a store, selection, sidecar or column that is not there, nothing left, or another
            run at work on the store.
    """
    opened = store.Store.open(arguments.store)
    with files.sole_writer(opened.path):  # of what is measured: a shard has one file for all rows
        return _select(opened, arguments)


def _select(opened: store.Store, arguments: argparse.Namespace) -> RowFunnel:
    path = opened.path / "selections" / f"{arguments.name}.json"
    if path.with_suffix(".npy").exists() and not arguments.overwrite:
        raise UserError(
            f"{opened.path} has a selection {arguments.name!r}: choose another --name, or replace "
            "it with --overwrite (a run that trains on it would change)"
        )
    start = np.full(opened.num_rows, not arguments.within)
    if arguments.within:
        start[np.asarray(opened.selection(arguments.within), np.int64)] = True
    funnel = RowFunnel(start, lambda row: _key(opened, row))
    if not funnel.rows_in:
        raise UserError(f"the selection {arguments.within!r} of {opened.path} has no rows")
    for apply in select_rules.IN_ORDER:
        apply(opened, arguments, funnel)
    if not funnel.alive.any():
        worst = max(funnel.steps, key=lambda step: step.removed)
        raise UserError(
            f"no row is left of {funnel.rows_in:,}, nothing was written: loosen the rules "
            f"({worst.rule!r} alone took out {worst.removed:,})"
        )
    content = {
        "selection": arguments.name,
        "store": {"name": opened.name, "rows": opened.num_rows},
        "settings": _settings(arguments),
        "funnel": funnel.to_json(),
        "versions": _versions(),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    path.parent.mkdir(exist_ok=True)
    files.write_atomically(path, text.encode(errors="surrogateescape"))
    store.write_selection(opened.path, arguments.name, np.flatnonzero(funnel.alive))
    return funnel


def _key(opened: store.Store, row: int) -> str:
    at = opened.locate(row)
    try:
        return opened.read(at.shard, at.row, [])[store.KEY][0].decode(errors="replace")
    except ValueError:
        return f"shard {at.shard} row {at.row}"


def _settings(arguments: argparse.Namespace) -> dict[str, object]:
    """The rules that were given."""
    return {
        name: value
        for name, value in vars(arguments).items()
        if name not in _NOT_RULES
        and value is not None
        and value is not False
        and value not in ("", [])
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in ("numpy", "imagehash", "py3langid"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.data.select",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", type=pathlib.Path)
    parser.add_argument("--name", required=True, help="of the selection")
    parser.add_argument("--overwrite", action="store_true", help="replace a selection of that name")
    parser.add_argument("--workers", type=int, default=parallel.available_cores())
    parser.add_argument("--within", default="", help="start from this selection, not all rows")
    _add_label_rules(parser)
    conditions.add_arguments(parser)
    _add_caption_rules(parser)
    _add_duplicate_rules(parser)
    parser.add_argument("--take", type=int, help="at the end, so many of the rows, at random")
    parser.add_argument("--seed", type=int, default=0, help="of --take; fewer rows nest in more")
    parsed = parser.parse_args(arguments)
    _check(parser, parsed)
    return parsed


def _add_label_rules(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("labels (sidecars, by commas)")
    group.add_argument("--with", dest="having", type=_names, default=[], metavar="SIDECARS")
    group.add_argument("--without", dest="lacking", type=_names, default=[], metavar="SIDECARS")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _add_caption_rules(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("captions (a row without one stays unless said otherwise)")
    group.add_argument("--require_caption", action="store_true")
    for name in ("min_words", "max_words", "min_characters"):
        group.add_argument(f"--{name}", type=int)
    group.add_argument(
        "--no_boilerplate",
        action="store_true",
        help="no file names, web addresses, captions without a letter, 'click to enlarge'",
    )
    group.add_argument(
        "--max_repeats", type=int, help="a caption that more rows of the store have goes"
    )
    group.add_argument("--language", type=_names, default=[], help="codes by commas, such as en")
    group.add_argument(
        "--min_language_probability",
        type=float,
        default=select_rules.MIN_LANGUAGE_PROBABILITY,
        help="of the languages together; %(default)s takes out 2 %% of short English captions",
    )
    group.add_argument(
        "--language_from_words",
        type=int,
        default=select_rules.LANGUAGE_FROM_WORDS,
        help="shorter captions stay: their language is a guess (default %(default)s)",
    )


def _add_duplicate_rules(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "duplicates (of equal rows one with a caption, else the first)"
    )
    group.add_argument("--no_duplicates", action="store_true", help="of the stored bytes")
    group.add_argument(
        "--near_duplicates",
        type=int,
        nargs="?",
        const=4,
        metavar="BITS",
        help="of a perceptual hash within so many of 64 bits, 4 if none are given; 0 to "
        f"{duplicates.MAX_DISTANCE}; colour does not count",
    )


def _check(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", parsed.name):
        parser.error(f"--name {parsed.name!r}: want letters, digits, _, - and .")
    if not 0 <= (parsed.near_duplicates or 0) <= duplicates.MAX_DISTANCE:
        parser.error(f"--near_duplicates is 0 to {duplicates.MAX_DISTANCE}")
    for name in ("workers", "take", "min_words", "max_words", "min_characters", "max_repeats"):
        value = getattr(parsed, name)
        if value is not None and value < 1:
            parser.error(f"--{name} is at least 1")
    for name, rules in _GO_WITH.items():
        given = getattr(parsed, name) != parser.get_default(name)
        if given and not any(getattr(parsed, rule) for rule in rules):
            parser.error(f"--{name} goes with --{' or --'.join(rules)}")


@report_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parsed = _parse(arguments)
    funnel = select(parsed)
    print(funnel.table())
    print(f"{parsed.store}: selection {parsed.name}, {int(funnel.alive.sum()):,} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
