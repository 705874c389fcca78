# SPDX-License-Identifier: Apache-2.0
"""Features of a folder of images from an exported encoder.

    python -m tools.extract --model EXPORT --input IMAGES --output features.npz [--tokens]

The file holds `names`, `pooled` [b, d] (not normalised), with `--tokens` also `patch_tokens`
[b, n, d], all float32, and `unreadable`: names of files that were skipped. Files are turned upright
by their EXIF tag. Exit status 1 when any file was skipped.
"""

import argparse
import concurrent.futures
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtv_jax.core.errors import UserError, report_user_errors
from mtv_jax.core.progress import Progress
from tools.data.sources import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from mtv_jax.interop.trained import TrainedEncoder


@report_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    args = _parse(argv)
    files = find_images(args.input)
    output = _checked_output(args.output)

    from mtv_jax.interop import load

    model = load(args.model)
    if not model.pools:
        print("the model's pooled vectors were not trained: use --tokens", file=sys.stderr)
    arrays = extract(model, files, batch=args.batch, tokens=args.tokens)
    _write(output, arrays)
    skipped = arrays["unreadable"]
    print(f"{output}: {len(arrays['names'])} images, {len(skipped)} unreadable", file=sys.stderr)
    return 1 if len(skipped) else 0


def find_images(inputs: Sequence[str]) -> dict[str, pathlib.Path]:
    """Name → file: the images below a folder by relative path, files by their own.

    Of several inputs the names are the whole paths, so that none hides another.

    Raises:
        UserError: a path that does not exist, or no image at all.
    """
    found: dict[str, pathlib.Path] = {}
    for path in map(pathlib.Path, inputs):
        if path.is_dir():
            below = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            alone = len(inputs) == 1
            found |= {str(p.relative_to(path) if alone else p): p for p in below if p.is_file()}
        elif path.is_file():
            found[str(path)] = path
        else:
            raise UserError(f"--input {path} does not exist; give images or folders of them")
    if not found:
        raise UserError(f"no images ({', '.join(sorted(IMAGE_SUFFIXES))}) in {', '.join(inputs)}")
    return found


def extract(
    encoder: "TrainedEncoder", files: dict[str, pathlib.Path], *, batch: int, tokens: bool
) -> dict[str, np.ndarray]:
    """The arrays of the output file, in the order of `files`."""
    from mtv_jax.core.passes import Wants

    size, wants = encoder.encoder.image_size, Wants(pooled=True, tokens=tokens)
    names: list[str] = []
    unreadable: list[str] = []
    pooled, patch_tokens = [], []
    progress = Progress("extract", len(files))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for start in range(0, len(files), batch):
            chunk = list(files)[start : start + batch]
            images = dict(
                zip(chunk, pool.map(lambda n: _read(encoder, files[n]), chunk), strict=True)
            )
            good = {name: image for name, image in images.items() if image is not None}
            unreadable += [name for name in chunk if name not in good]
            if good:
                # Padded: every batch is one shape, compiled once.
                rows = np.resize(np.stack([*good.values()]), (batch, size, size, 3))
                features = encoder.encode_image(encoder.images.pixels(rows), wants)
                names += good
                pooled.append(np.asarray(features.pooled)[: len(good)])
                if tokens:
                    patch_tokens.append(np.asarray(features.tokens)[: len(good)])
            progress.show(start + len(chunk))
    progress.finish(len(files))
    if not names:
        raise UserError(f"none of {len(files)} images could be read, the first is {unreadable[0]}")
    arrays = {"names": np.array(names), "pooled": np.concatenate(pooled)}
    if tokens:
        arrays["patch_tokens"] = np.concatenate(patch_tokens)
    return arrays | {"unreadable": np.array(unreadable, dtype=str)}


def _read(encoder: "TrainedEncoder", path: pathlib.Path) -> np.ndarray | None:
    """The squashed image, or None (and a line on stderr) if the file cannot be read."""
    try:
        return encoder.squash([path])[0]
    except (OSError, ValueError) as error:
        print(f"skipped {path}: {error}", file=sys.stderr)
        return None


def _write(output: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    temporary = output.with_name(f".{output.name}.tmp.npz")
    try:
        np.savez(temporary, **arrays)
        os.replace(temporary, output)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _checked_output(path: str) -> pathlib.Path:
    output = pathlib.Path(path)
    if output.suffix != ".npz":
        raise UserError(f"--output {path} should end in .npz")
    if not os.access(output.parent, os.W_OK):
        raise UserError(f"--output {path}: cannot write to the folder {output.parent}")
    return output


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.extract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="exported folder")
    parser.add_argument("--input", required=True, nargs="+", help="images, or folders of them")
    parser.add_argument("--output", required=True, help="the .npz to write")
    parser.add_argument("--batch", type=int, default=64, help="images at a time")
    parser.add_argument("--tokens", action="store_true", help="write patch tokens, too")
    args = parser.parse_args(argv)
    if args.batch < 1:
        parser.error("--batch must be at least 1")
    return args


if __name__ == "__main__":
    sys.exit(main())
