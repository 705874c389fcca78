# SPDX-License-Identifier: Apache-2.0
"""Writes RUN/report.html and RUN/pictures/: `python -m tools.report --workdir RUN`.

The page is one file that needs no network: summary, numbers with chance levels, curves, pictures
of what the newest checkpoint makes of the evaluators' data, plan, environment, config. Pictures
need the stores of the config's evaluators; without them the page says so.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from mtv_jax.core.errors import UserError, report_user_errors


@report_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, help="run directory")
    parser.add_argument(
        "--trust_root", action="append", default=[], help="as of training; may be repeated"
    )
    parsed = parser.parse_args(arguments)
    write_report(pathlib.Path(parsed.workdir), parsed.trust_root)
    return 0


def write_report(workdir: pathlib.Path, trusted: Sequence[str]) -> None:
    """Page and pictures of a run directory.

    Raises:
        UserError: no run there, or a folder that cannot be written.
    """
    from mtv_jax.training.rundir import run_config
    from tools.reporting.page import render
    from tools.reporting.pictures import draw_gallery

    config = run_config(workdir)
    print("restoring the model, drawing pictures", file=sys.stderr)
    gallery = draw_gallery(workdir, config, trusted)
    page = workdir / "report.html"
    try:
        for picture in gallery.pictures:
            path = workdir / "pictures" / f"{picture.name}.png"
            path.parent.mkdir(exist_ok=True)
            picture.image.save(path)
        page.write_text(render(workdir, config, gallery))
    except OSError as error:
        raise UserError(f"cannot write to {workdir}: {error.strerror}") from error
    for note in gallery.notes:
        print(note, file=sys.stderr)
    print(f"wrote {page} and {len(gallery.pictures)} pictures")


if __name__ == "__main__":
    sys.exit(main())
