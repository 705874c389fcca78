# SPDX-License-Identifier: Apache-2.0
"""The one kind of error a user can cause, and how every entry point reports it."""

import sys
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """Something the user can mend; the message is one line: the cause, then the remedy."""


def closest(name: str, options: Iterable[str]) -> str:
    """A clause naming the nearest option: ' (did you mean "lr"?)', or all of them."""
    import difflib

    options = sorted(options)
    match = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    if match:
        return f' (did you mean "{match[0]}"?)'
    return f" (known: {', '.join(options) or 'none'})"


def report_user_errors(main: Callable[..., int | None]) -> Callable[..., int]:
    """Turns a `UserError` out of an entry point into one line on stderr and exit status 2."""

    def guarded(*args: object) -> int:
        try:
            return main(*args) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return guarded
