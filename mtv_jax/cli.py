# SPDX-License-Identifier: Apache-2.0
"""What the entry points share: flags and one-line errors."""

import logging as std_logging
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from mtv_jax.core.config import plain
from mtv_jax.core.errors import UserError, report_user_errors

TRUST_ROOT = flags.DEFINE_multi_string(
    "trust_root", [], "Further package roots whose classes a config may name; may be repeated."
)


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """absl's `app.run`, with bad flags and `UserError`s as one line and status 2."""
    app.run(lambda argv: sys.exit(report_user_errors(main)(argv)), flags_parser=_parse)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(list(argv))
        logging.get_absl_handler().setLevel("WARNING")  # libraries' chatter goes to logs/
        return rest
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, OSError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)


def config_values(flag: flags.FlagHolder) -> dict[str, Any] | None:
    """The plain config of a `--config` flag, None when it was not given.

    Raises:
        UserError: the file cannot be loaded.
    """
    if flag.value is None:
        return None
    try:
        return plain(flag.value)
    except OSError as error:  # config_flags puts the failure off until the config is looked at
        raise UserError(f"--config cannot be loaded: {_last_line(str(error))}") from error


def _last_line(text: str) -> str:
    return [line.strip() for line in text.splitlines() if line.strip()][-1]


def _one_line(error: BaseException) -> str:
    """The message without the traceback that config_flags wraps around a config file's error."""
    text = str(error.args[0] if isinstance(error, KeyError) else error)
    return _last_line(text) if "Traceback" in text else " ".join(text.replace("\\n", " ").split())


def log_to(path: pathlib.Path) -> None:
    """Sends library messages to a file instead of the terminal; warnings go to both."""
    handler = std_logging.FileHandler(path)
    handler.setFormatter(std_logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    std_logging.getLogger().addHandler(handler)
