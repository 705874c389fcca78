# SPDX-License-Identifier: Apache-2.0
"""The errors a user can cause, and how every entry point reports them."""

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
    """Turns what is not a fault of the program into one line on stderr and an exit status.

    That is a `UserError` or a file the system refuses (2), and Ctrl-C (130).
    """

    def guarded(*args: object) -> int:
        try:
            return main(*args) or 0
        except UserError as error:
            message = str(error)
        except OSError as error:
            if error.filename is None:
                raise
            message = f"{error.filename}: {error.strerror}"
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 130
        print(f"error: {message}", file=sys.stderr)
        return 2

    return guarded
