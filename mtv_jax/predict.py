# SPDX-License-Identifier: Apache-2.0
"""Shows what a model sees in images: one picture an image.

    python -m mtv_jax.predict --model runs/quickstart --store data/quickstart/test photo.jpg
    python -m mtv_jax.predict --model b16 --captions captions.txt --output seen photos/*.jpg

A picture holds the image; every map that the model's heads predict (depth: light is near); the
patch features by their first three principal components, the same for all images of one call, as
red, green and blue; and the best of the given captions with their cosines. The model is a run or an
exported folder.
"""

import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from jaxtyping import Float
from PIL import Image

from mtv_jax import cli, drawing
from mtv_jax.core.errors import UserError

if TYPE_CHECKING:
    from mtv_jax.interop.trained import TrainedEncoder

_MODEL = flags.DEFINE_string("model", None, "Run directory or exported folder.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint of a run; the newest by default.")
_OUTPUT = flags.DEFINE_string("output", "predictions", "Folder for the pictures; made when absent.")
_CAPTIONS = flags.DEFINE_string("captions", None, "File of captions to choose from, one a line.")
_STORE = flags.DEFINE_string("store", None, "Store whose captions to choose from.")

_BATCH = 32
_BEST = 5
_ROWS = 10_000  # of a store, whose captions are embedded anew every time
_SIDE, _LEAST = 256, 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captions:
    """What an image may be called, and the unit vectors of it."""

    texts: Sequence[str]
    vectors: Float[np.ndarray, "t d"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Components:
    """Principal components of patch features, as colours.

    Attributes:
        mean: of the features.
        axes: the first three directions.
        low: value along an axis that is black.
        high: value along an axis that is full.
    """

    mean: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "d 3"]
    low: Float[np.ndarray, " 3"]
    high: Float[np.ndarray, " 3"]

    @classmethod
    def of(cls, tokens: Float[np.ndarray, "b n d"]) -> "Components":
        """Fitted to the features of some images."""
        rows = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
        mean = rows.mean(axis=0)
        _, vectors = np.linalg.eigh(np.cov(rows - mean, rowvar=False))
        axes = vectors[:, :-4:-1]
        low, high = np.percentile((rows - mean) @ axes, (1, 99), axis=0)
        return cls(mean=mean, axes=axes, low=low, high=high)

    def colors(self, tokens: Float[np.ndarray, "n d"]) -> Image.Image:
        """One pixel a patch."""
        grid = round(len(tokens) ** 0.5)
        values = ((tokens - self.mean) @ self.axes - self.low) / (self.high - self.low + 1e-12)
        pixels = np.uint8(255 * np.clip(values, 0, 1)).reshape(grid, grid, 3)
        return Image.fromarray(pixels)


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    if not _MODEL.value:
        raise UserError("--model is missing; it is a run directory or an exported folder")
    targets = _targets([pathlib.Path(path) for path in argv[1:]], pathlib.Path(_OUTPUT.value))
    from mtv_jax.reopen import open_model

    model = open_model(_MODEL.value, step=_STEP.value, trusted=tuple(cli.TRUST_ROOT.value))
    captions = _captions(model)
    written = 0
    for path, picture in pictures(model, list(targets), captions):
        picture.save(targets[path])
        written += 1
        print(f"wrote {targets[path]}", flush=True)
    return 0 if written == len(targets) else 1


def pictures(
    model: "TrainedEncoder", paths: Sequence[pathlib.Path], captions: Captions | None
) -> Iterator[tuple[pathlib.Path, Image.Image]]:
    """A picture of every file that can be read; the others are named on stderr."""
    from mtv_jax.core.passes import Wants, wanted

    components: Components | None = None
    for start in range(0, len(paths), _BATCH):
        images = _read(paths[start : start + _BATCH])
        if not images:
            continue
        squashed = model.squash([*images.values()])
        # Padded: every batch is one shape, compiled once.
        padded = np.resize(squashed, (min(_BATCH, len(paths)), *squashed.shape[1:]))
        features = model.encode_image(model.images.pixels(padded), Wants(tokens=True, pooled=True))
        tokens, pooled = (np.asarray(wanted(f)) for f in (features.tokens, features.pooled))
        components = components or Components.of(tokens[: len(images)])
        maps = model.maps([*padded])
        for row, (path, image) in enumerate(images.items()):
            panels = {path.name: Image.fromarray(image)}
            panels |= {name: drawing.colored(values[row]) for name, values in maps.items()}
            panels["patch features"] = components.colors(tokens[row])
            yield path, _sheet(panels, _best(pooled[row], captions))


def _sheet(panels: Mapping[str, Image.Image], lines: Sequence[str]) -> Image.Image:
    """Panels side by side in the shape of the first, captions at the end."""
    first = next(iter(panels.values()))
    scale = _SIDE / max(first.size)
    size = (max(round(first.width * scale), _LEAST), max(round(first.height * scale), _LEAST))
    columns = [
        drawing.column(
            [
                drawing.text_box([drawing.Text(name, "black")], size[0], drawing.LINE),
                panel.resize(size, Image.Resampling.BICUBIC),
            ]
        )
        for name, panel in panels.items()
    ]
    if lines:
        texts = [drawing.Text(line) for line in lines]
        columns.append(drawing.text_box(texts, _SIDE, columns[0].height))
    return drawing.row(columns)


def _best(pooled: Float[np.ndarray, " d"], captions: Captions | None) -> list[str]:
    if captions is None:
        return []
    cosines = captions.vectors @ (pooled / np.linalg.norm(pooled))
    best = np.argsort(-cosines, kind="stable")[:_BEST]
    return [f"{cosines[k]:.2f} {captions.texts[k]}" for k in best]


def _captions(model: "TrainedEncoder") -> Captions | None:
    """The captions to choose from, embedded."""
    if _CAPTIONS.value and _STORE.value:
        raise UserError("give --captions or --store, not both")
    texts = _from_file(_CAPTIONS.value) if _CAPTIONS.value else _from_store(_STORE.value)
    if not texts:
        return None
    from mtv_jax.interop.trained import unit

    parts = [model.text_features(texts[i : i + 256]) for i in range(0, len(texts), 256)]
    return Captions(texts=texts, vectors=unit(np.concatenate(parts)))


def _from_file(path: str) -> list[str]:
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"--captions {path} is not UTF-8 text") from error
    lines = [line.strip() for line in text.splitlines()]
    if not any(lines):
        raise UserError(f"--captions {path} is empty; give one caption a line")
    return [line for line in dict.fromkeys(lines) if line]


def _from_store(path: str | None) -> list[str]:
    """Distinct captions of a store's first rows; none without a store."""
    if not path:
        return []
    from input_pipeline.eval_set import EvalSet

    values = EvalSet(store=path, limit=_ROWS).column("caption")
    texts = list(dict.fromkeys(value[0].decode(errors="replace") for value in values if value))
    if not texts:
        raise UserError(f"--store {path} has no captions; give others with --captions")
    return texts


def _read(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, np.ndarray]:
    from mtv_jax.interop.preprocessing import read_image

    images: dict[pathlib.Path, np.ndarray] = {}
    for path in paths:
        try:
            images[path] = read_image(path)
        except (OSError, ValueError) as error:
            print(f"skipped {path}: {error}", file=sys.stderr)
    return images


def _targets(
    paths: Sequence[pathlib.Path], output: pathlib.Path
) -> dict[pathlib.Path, pathlib.Path]:
    """Where the picture of each image goes; no two alike, and none over an image.

    Raises:
        UserError: no images, a folder among them, or an output that cannot be written.
    """
    if not paths:
        raise UserError("no images; give their files after the flags")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to --output {output}: {error.strerror}") from error
    images = {path.resolve() for path in paths}
    targets: dict[pathlib.Path, pathlib.Path] = {}
    taken: set[str] = set()
    for path in dict.fromkeys(paths):
        if path.is_dir():
            raise UserError(f"{path} is a folder; give images, such as {path}/*.jpg")
        names = (f"{path.stem}-{n}" if n > 1 else path.stem for n in itertools.count(1))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        targets[path] = output / f"{name}.png"
        if targets[path].resolve() in images:
            raise UserError(f"{targets[path]} would be overwritten; give another --output")
    return targets


if __name__ == "__main__":
    cli.run(main)
