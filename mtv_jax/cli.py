# SPDX-License-Identifier: Apache-2.0
"""What the entry points share: flags, one-line errors, the config of a run."""

import json
import logging as std_logging
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from mtv_jax.core.errors import UserError, report_user_errors

TRUST_ROOT = flags.DEFINE_multi_string(
    "trust_root", [], "Further package roots whose classes a config may name; may be repeated."
)


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """absl's `app.run`, with bad flags and `UserError`s as one line and status 2."""
    logging.set_stderrthreshold("warning")
    app.run(lambda argv: sys.exit(report_user_errors(main)(argv)), flags_parser=_parse)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(list(argv))
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, OSError) as error:
        cause = " ".join(str(error).split())
        print(f"error: {cause}", file=sys.stderr)
        sys.exit(2)


def log_to(path: pathlib.Path) -> None:
    """Sends library messages to a file instead of the terminal; warnings go to both."""
    handler = std_logging.FileHandler(path)
    handler.setFormatter(std_logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    std_logging.getLogger().addHandler(handler)
    logging.set_stderrthreshold("warning")


def run_config(workdir: str) -> dict[str, Any]:
    """The resolved config that a run directory holds.

    Raises:
        UserError: there is none.
    """
    path = pathlib.Path(workdir) / "config.json"
    if not workdir or not path.is_file():
        raise UserError(f"--workdir {workdir!r} holds no run (no config.json); train one first")
    return json.loads(path.read_text())
