# SPDX-License-Identifier: Apache-2.0
"""Relative depth by Depth Anything V2 (arXiv 2406.09414), through `transformers`.

The network gives disparity: large is near. Images go through the folder's own processor (short
side 518, multiples of 14), batches hold one shape. What is stored is min-max scaled to 16 bits at
a short side of 288: the loss is blind to scale and shift of an image.
"""

import dataclasses
import functools
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from input_pipeline import decode
from mtv_jax.core.config import at_least
from mtv_jax.core.fields import DEPTH, Field
from tools.data.depth_values import Rejected
from tools.label.base import Expert, Labeller, Labels, Licence, Sample
from tools.label.experts import hub

_SIZES = {"small": "Small", "base": "Base", "large": "Large"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthAnythingV2(Expert):
    """Disparity of every image.

    Attributes:
        size: "small", "base" or "large".
        weights: folder or hub id; "" for the published weights of the size.
        short_side: of what is stored, in pixels.
        least_spread: between the 2nd and the 98th percentile of a map, as a share of its largest
            magnitude; a flatter map is rejected.
    """

    sidecar: str = "depth_v1"
    size: str = "large"
    weights: str = ""
    batch_size: int = at_least(1, 8)
    short_side: int = at_least(16, 288)
    least_spread: float = at_least(0.0, 1e-3)

    @property
    def licence(self) -> Licence:
        """That of the small one differs from the others'."""
        if self.size == "small":
            return Licence(name="Apache-2.0", commercial=True)
        return Licence(name="CC-BY-NC-4.0", commercial=False)

    def emits(self) -> tuple[Field, ...]:
        return (DEPTH,)

    def load(self, device: str) -> "_Depth":
        return _Depth(self, device)

    @functools.cached_property
    def source(self) -> str:
        """Folder or hub id of the weights."""
        return self.weights or f"depth-anything/Depth-Anything-V2-{_SIZES[self.size]}-hf"


@dataclasses.dataclass(frozen=True)
class _Prepared:
    pixels: Float32[np.ndarray, "3 h w"]
    size: tuple[int, int]  # of the stored image


class _Depth(Labeller):
    def __init__(self, settings: DepthAnythingV2, device: str):
        torch, transformers = hub.packages()
        loaded = hub.load(
            settings.source,
            transformers.AutoModelForDepthEstimation,
            transformers.AutoImageProcessor,
            licence=settings.licence,
            device=device,
        )
        self._settings, self._torch = settings, torch
        self._model, self._processor = loaded.model, loaded.processor
        self.digest = loaded.digest

    def prepare(self, sample: Sample) -> _Prepared:
        pixels = self._processor(sample.image, return_tensors="np")["pixel_values"][0]
        return _Prepared(np.asarray(pixels, np.float32), sample.image.shape[:2])

    def shape(self, prepared: _Prepared) -> Hashable:
        return prepared.pixels.shape

    def label(self, prepared: Sequence[_Prepared]) -> list[Labels | Rejected]:
        torch = self._torch
        batch = torch.from_numpy(np.stack([item.pixels for item in prepared]))
        with torch.inference_mode():
            model = self._model
            disparity = model(batch.to(model.device, model.dtype)).predicted_depth.float()
            return [
                self._encoded(one, item.size) for one, item in zip(disparity, prepared, strict=True)
            ]

    def _encoded(self, disparity: Any, size: tuple[int, int]) -> Labels | Rejected:
        """One map at the stored size, or why it cannot be used."""
        scale = min(self._settings.short_side / min(size), 1.0)
        height, width = (max(round(side * scale), 1) for side in size)
        resized = self._torch.nn.functional.interpolate(
            disparity[None, None], (height, width), mode="bicubic", align_corners=False
        )
        values = resized[0, 0].cpu().numpy()
        low, high = np.percentile(values, [2, 98])
        if not np.isfinite(values).all():
            return Rejected("a map that is not finite", "")
        if high - low <= self._settings.least_spread * np.abs(values).max():
            return Rejected("a flat map", f"{low:.4g} to {high:.4g}")
        low, high = values.min(), values.max()
        codes = np.round((values - low) / (high - low) * 65535).astype(np.uint16)
        return {DEPTH.name: decode.encode_png16(codes)}
