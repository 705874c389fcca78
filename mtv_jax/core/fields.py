# SPDX-License-Identifier: Apache-2.0
"""What a column of a sample is: the contract between label tools, store, loader and objectives.

A `Field` is written into a store's manifest by whoever makes the column, asked for by the
objectives that read it, and obeyed by the loader (shape, padding, codec) and by the views
(geometry). This module imports neither jax nor the loader.
"""

import dataclasses
from typing import Any, Literal

Geometry = Literal["none", "raster", "vector_raster", "boxes", "points"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """One column of a sample.

    Attributes:
        name: key in the record and in the batch.
        shape: per-sample shape by axis names of the legend in `core/passes.py`; "" is a scalar.
        dtype: element type in the batch; "str" columns are encoded by the loader to int32.
        geometry: how a window moves it. boxes and points are in [0, 1] of the stored image, boxes
            as xyxy, points as xy.
        resample: interpolation of a raster under a window.
        pad_to: static length of the leading axis of ragged columns and of token ids.
        codec: how the record holds it: "" plain Example lists, else an encoded image.
        encode: for "str" columns, token ids or an index into the mixture's vocabulary.
        unit: physical unit or sign convention, in words ("disparity, large = near").
    """

    name: str
    shape: str = ""
    dtype: Literal["uint8", "uint16", "int32", "float32", "str"] = "float32"
    geometry: Geometry = "none"
    resample: Literal["linear", "cubic", "nearest"] = "linear"
    pad_to: int | None = None
    codec: Literal["", "image", "png16"] = ""
    encode: Literal["", "tokens", "vocabulary"] = ""
    unit: str = ""

    def to_json(self) -> dict[str, Any]:
        """The non-default attributes, for a manifest."""
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        return {k: v for k, v in dataclasses.asdict(self).items() if v != defaults[k]}


IMAGE = Field(
    name="image", shape="h w 3", dtype="uint8", geometry="raster", resample="cubic", codec="image"
)
CAPTION = Field(name="caption", shape="t", dtype="str", encode="tokens")
DEPTH = Field(
    name="depth",
    shape="h w",
    dtype="uint16",
    geometry="raster",
    codec="png16",
    unit="disparity, large = near, min-max scaled per image",
)
DEPTH_AGREEMENT = Field(
    name="depth_agreement", unit="correlation of the map with that of the mirror image"
)
BOXES = Field(name="boxes", shape="r 4", geometry="boxes", pad_to=20, unit="xyxy in [0, 1]")
PHRASES = Field(name="phrases", shape="r", dtype="str", pad_to=20, encode="vocabulary")
SCORES = Field(name="scores", shape="r", pad_to=20)
MENTIONED = Field(
    name="mentioned",
    shape="r",
    dtype="int32",
    pad_to=20,
    unit="1 where the caption speaks of the phrase",
)
