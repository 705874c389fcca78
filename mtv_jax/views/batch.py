# SPDX-License-Identifier: Apache-2.0
"""The batch on the device: loader columns, drawn windows, and the inputs of passes.

One drawn window per view moves image, rasters, boxes and points together: `Batch.under` gives any
column as it appears in any view.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, Key, Shaped, UInt32

from mtv_jax.core import rng
from mtv_jax.core.fields import Field
from mtv_jax.core.masking import zero_invalid
from mtv_jax.core.passes import ImageView, TextView, View
from mtv_jax.views.geometry import Window, draw_windows, move_boxes, move_points
from mtv_jax.views.resample import cut


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """What is static about a batch: the views of the config, the columns, the patch size."""

    views: tuple[View, ...]
    fields: tuple[Field, ...]
    patch_size: int

    def view(self, name: str) -> View:
        return next(v for v in self.views if v.name == name)

    def field(self, name: str) -> Field:
        return next(f for f in self.fields if f.name == name)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of the global batch.

    Attributes:
        columns: loader columns by field name, and "image_size" [b, 2] (height, width).
        valid: field name → [b] bool, which samples have the column.
        position: stream positions in two uint32 words.
        record_id: (store, shard, row); equal ids are the same image.
        keys: per-sample keys, folded from seed and position.
        windows: view name → its drawn windows.
        inputs: what passes read: pixels in [-1, 1] [b (v) h w 3] or ids [b t] by view name, and
            whatever objectives derive.
        spec: static description.
    """

    columns: dict[str, Shaped[Array, "b ..."]]
    valid: dict[str, Bool[Array, " b"]]
    position: UInt32[Array, "b 2"]
    record_id: Int32[Array, "b 3"]
    keys: Key[Array, " b"]
    windows: dict[str, Window] = dataclasses.field(default_factory=dict)
    inputs: dict[str, Shaped[Array, "b ..."]] = dataclasses.field(default_factory=dict)
    spec: BatchSpec = dataclasses.field(metadata={"static": True})

    def under(self, view: str, field: str) -> Shaped[Array, "b ..."]:
        """A column as `view` sees it: cut, or moved into the view's [0, 1].

        A flip also turns the x component of a vector raster (surface normals).
        """
        recipe, column = self.spec.view(view), self.spec.field(field)
        assert isinstance(recipe, ImageView)
        values = zero_invalid(self.columns[field], self.valid[field])
        window = self.windows[view]
        if column.geometry == "boxes":
            return move_boxes(values, window)
        if column.geometry == "points":
            return move_points(values, window)
        if column.geometry not in ("raster", "vector_raster"):
            raise ValueError(f"{field} has geometry {column.geometry!r}; nothing moves it")
        channels_last = values if values.ndim == 4 else values[..., None]
        moved = cut(
            channels_last.astype(jnp.float32), window, size=recipe.size, method=column.resample
        )
        if column.geometry == "vector_raster":
            sign = jnp.where(window.flip, -1.0, 1.0)[..., None, None]
            moved = moved.at[..., 0].multiply(sign)
        return moved if values.ndim == 4 else moved[..., 0]

    def grid(self, view: str) -> int:
        """Patches per side of an image view."""
        recipe = self.spec.view(view)
        assert isinstance(recipe, ImageView)
        return recipe.size // self.spec.patch_size


def open_batch(raw: Mapping[str, Any], *, seed: int, spec: BatchSpec) -> Batch:
    """A loader batch on the device, with every view's windows drawn (no pixels cut yet)."""
    raw = dict(raw)
    position, valid, record_id = raw.pop("position"), raw.pop("valid"), raw.pop("record_id")
    keys = rng.position_keys(seed, position)
    windows = {
        view.name: draw_windows(rng.named(keys, f"window/{view.name}"), raw["image_size"], view)
        for view in spec.views
        if isinstance(view, ImageView)
    }
    return Batch(
        columns=raw,
        valid=valid,
        position=position,
        record_id=record_id,
        keys=keys,
        windows=windows,
        spec=spec,
    )


def cut_views(batch: Batch) -> Batch:
    """The batch with the inputs of all views: pixels in [-1, 1], and token ids.

    Views whose column no objective reads are left out; the compiler drops those nobody uses.
    """
    inputs = dict(batch.inputs)
    for view in batch.spec.views:
        if view.field not in batch.columns or (isinstance(view, TextView) and view.table):
            continue
        if isinstance(view, TextView):
            inputs[view.name] = zero_invalid(batch.columns[view.field], batch.valid[view.field])
        else:
            pixels = batch.under(view.name, view.field) / 127.5 - 1.0
            inputs[view.name] = jnp.clip(pixels, -1.0, 1.0)
    return dataclasses.replace(batch, inputs=inputs)
