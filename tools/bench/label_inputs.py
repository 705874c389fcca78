# SPDX-License-Identifier: Apache-2.0
"""Made inputs of the labelling bench: images, disparity maps, boxes, and a store of them."""

import dataclasses
import functools
import pathlib

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float32, UInt8

from input_pipeline import decode, store
from mtv_jax.core.fields import CAPTION, IMAGE, Field
from tools.label.base import Sample
from tools.scenes.sample import make_sample

HEIGHT, WIDTH = 480, 640
TAGS = tuple(f"{color} {thing}" for color in ("red", "old") for thing in "abcdefghijklmnop")
TEXT = "a made picture of things that lie about, with a caption of common length"
_OBJECTS, _BOXES = 26, 8  # objects of an image; boxes that a detector puts about each
_PATCHES = 3600  # of OWLv2
_PICTURES = 8
_LOGIT = -8.0  # of a patch without an object


def picture(rng: np.random.Generator) -> UInt8[np.ndarray, "480 640 3"]:
    """Noise whose octaves fade as those of photographs do; its JPEG has about 63 KB."""
    total = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for octave in range(2, 9):
        size = (min(4 * 2**octave // 3, WIDTH), min(2**octave, HEIGHT))
        coarse = rng.standard_normal((size[1], size[0], 3)).astype(np.float32)
        smooth = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        total += smooth / 2 ** (octave / 2)
    total *= 50 / total.std()
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """As web images are: quality 85, colours at half the resolution."""
    return simplejpeg.encode_jpeg(image, quality=85, colorsubsampling="420")


@functools.cache
def made_map(number: int) -> Float32[np.ndarray, "288 384"]:
    """Disparity of a rendered scene at the stored size of a 640x480 image."""
    disparity = 1 / make_sample(0, "train", number, 288).rendering.depth
    return decode.resize_map(disparity, (288, 384))


@dataclasses.dataclass
class Found:
    """What OWLv2 might say: boxes of `_OBJECTS` objects among patches that see nothing."""

    logits: Float32[np.ndarray, "n tags"]
    boxes: Float32[np.ndarray, "n 4"]


@functools.cache
def made_boxes(number: int) -> Found:
    """Several boxes about each object, of one tag and close together."""
    rng = np.random.default_rng(number)
    count = _OBJECTS * _BOXES
    logits = rng.normal(_LOGIT, 1, (_PATCHES, len(TAGS))).astype(np.float32)
    boxes = rng.uniform(0.2, 0.6, (_PATCHES, 4)).astype(np.float32)
    centres = rng.uniform(0.1, 0.65, (_OBJECTS, 2))
    sides = rng.uniform(0.05, 0.3, (_OBJECTS, 2))
    objects = np.concatenate([centres, sides], axis=1).repeat(_BOXES, axis=0)
    boxes[:count] = objects * rng.normal(1, 0.02, (count, 4))
    tags = rng.integers(0, len(TAGS), _OBJECTS).repeat(_BOXES)
    logits[np.arange(count), tags] = rng.uniform(-1.3, 2, count)
    return Found(logits, boxes)


def write_store(path: pathlib.Path, rows: int) -> store.Store:
    """One shard of made images with captions; they repeat after a few."""
    rng = np.random.default_rng(0)
    images = [jpeg(picture(rng)) for _ in range(min(rows, _PICTURES))]
    sides = dict(height=HEIGHT, width=WIDTH)
    store.write_shard(
        path,
        store.BASE,
        0,
        (
            {"key": f"{row:07d}", "image": images[row % len(images)], "caption": TEXT, **sides}
            for row in range(rows)
        ),
    )
    fields = (IMAGE, CAPTION, *(Field(name=name, dtype="int32") for name in sides))
    store.finish_store(path, "made", fields, {})
    return store.Store.open(path)


def sample(opened: store.Store) -> Sample:
    """The first image, as the driver gives it to an expert, with as many tags as one looks for."""
    row = opened.read(0, 0, ("image", "caption"))
    tags = [tag.encode() for tag in TAGS]
    return Sample(
        key="0",
        image=decode.decode_image(bytes(row["image"][0])),
        columns={"caption": row["caption"], "ram_tags": tags},
    )
