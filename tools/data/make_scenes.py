# SPDX-License-Identifier: Apache-2.0
"""Renders textured, lit 3-D scenes with exact labels: OUTPUT/train and OUTPUT/test.

One to four objects of 33 classes stand on a ground before a sky or a wall; the main object is the
biggest on the screen. Its class, colour, pattern, finish, size and surroundings are independent of
each other. Some combinations of class, colour and pattern are kept for the main objects of the
test split: tools/scenes/identity.py has the rule, the manifests have the list.

Every store has image, caption, height, width, class_id and class_name, and the sidecars regions_v1
(boxes, phrases, scores) and depth_v1 (disparity). The test store has scene_v1 too: segmentation,
metric depth, camera, a second view with its depth and camera, keypoints of parts. The provenance
in the manifest lists the classes in the order of their ids.

Scene i of a split depends on the seed, the split and i alone. A killed run goes on when the same
command is given again.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from mtv_jax.core.errors import UserError, report_user_errors
from tools.data.parallel import available_cores


@report_user_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tools.data.make_scenes", description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder of the stores")
    parser.add_argument("--train", type=int, required=True, help="number of training scenes")
    parser.add_argument("--test", type=int, required=True, help="number of test scenes")
    parser.add_argument("--size", type=int, default=128, help="short side in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=available_cores())
    parsed = parser.parse_args(arguments)
    for name, least in (("train", 1), ("test", 1), ("size", 32), ("seed", 0), ("workers", 1)):
        if getattr(parsed, name) < least:
            parser.error(f"--{name} is at least {least}")
    from tools.scenes.writer import Settings, write_stores

    settings = Settings(train=parsed.train, test=parsed.test, size=parsed.size, seed=parsed.seed)
    try:
        write_stores(parsed.output, settings, parsed.workers)
    except OSError as error:
        raise UserError(f"{error.filename or parsed.output}: {error.strerror}") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
