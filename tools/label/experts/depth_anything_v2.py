# SPDX-License-Identifier: Apache-2.0
"""Relative depth by Depth Anything V2 (arXiv 2406.09414), through `transformers`.

The network gives disparity: large is near. Images are fitted as the folder says (a side of 518,
multiples of 14), batches hold one shape. What is stored is min-max scaled at a short side of 288:
the loss is blind to scale and shift of an image.

A map is doubted when the mirrored image has another one. The mirror image is looked at with few
pixels, which adds an eighth to the operations (a fifth for images shorter than 450), and both maps
are compared at that size by Pearson's correlation, blind to scale and shift as well. It is stored
as the label's confidence.
"""

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from input_pipeline import decode
from input_pipeline.example import Value
from mtv_jax.core.config import at_least
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import DEPTH, DEPTH_AGREEMENT, Field
from tools.label.base import Expert, Labeller, Licence, Outcome, Sample
from tools.label.experts import hub
from tools.label.experts.pixels import fitted

_SIZES = {"small": "Small", "base": "Base", "large": "Large"}
_WIDTHS = {384: "small", 768: "base", 1024: "large"}
_PATCH = 14
_COMPRESSION = 6  # of PNG: 14 % fewer bytes than OpenCV's own choice, in eight times the time
_AT_AN_END = 1e-3  # of the range of a map


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthAnythingV2(Expert):
    """Disparity of every image.

    Attributes:
        size: "small", "base" or "large".
        weights: folder or hub id; "" for the published weights of the size.
        short_side: of what is stored, in pixels.
        bits: of a stored number, the upper ones of 16. Ten keep the error of rounding at a third
            of what bfloat16 costs the network, in half the bytes of sixteen.
        least_spread: between the 2nd and the 98th percentile of a map, as a share of its largest
            magnitude; a flatter map is rejected.
        most_saturated: share of pixels at either end of a map's range; more are rejected.
        mirror_side: short side of the mirror image, in pixels; 0 for no comparison.
        least_agreement: of a map with that of the mirror image.
    """

    sidecar: str = "depth_v1"
    size: str = "large"
    weights: str = ""
    batch_size: int = at_least(1, 8)
    short_side: int = at_least(16, 288)
    bits: int = at_least(1, 10)
    least_spread: float = at_least(0.0, 1e-3)
    most_saturated: float = at_least(0.0, 0.9)
    mirror_side: int = at_least(0, 196)
    least_agreement: float = at_least(-1.0, 0.5)

    @property
    def licence(self) -> Licence:
        """That of the small one differs from the others'."""
        if self.size == "small":
            return Licence(name="Apache-2.0", commercial=True)
        return Licence(name="CC-BY-NC-4.0", commercial=False)

    def __post_init__(self) -> None:
        if self.size not in _SIZES:
            raise UserError(f"experts.{self.name}.size is one of {', '.join(_SIZES)}")
        if self.bits > 16:
            raise UserError(f"experts.{self.name}.bits is at most 16")

    def emits(self) -> tuple[Field, ...]:
        return (DEPTH, DEPTH_AGREEMENT) if self.mirror_side else (DEPTH,)

    def load(self, device: str) -> "_Depth":
        return _Depth(self, device)

    @property
    def published(self) -> str:
        """Hub id of the published weights of its size."""
        return f"depth-anything/Depth-Anything-V2-{_SIZES[self.size]}-hf"


@dataclasses.dataclass(frozen=True)
class _Prepared:
    pixels: Float32[np.ndarray, "3 h w"]
    size: tuple[int, int]  # of what is stored


@dataclasses.dataclass(frozen=True)
class _Map:
    """A map at the stored size, and how well that of the mirror image agrees."""

    disparity: Float32[np.ndarray, "h w"]
    agreement: float | None = None


class _Depth(Labeller):
    def __init__(self, settings: DepthAnythingV2, device: str):
        torch, transformers = hub.packages()
        loaded = hub.load(
            settings,
            settings.weights or settings.published,
            transformers.AutoModelForDepthEstimation,
            transformers.AutoImageProcessor,
            published=settings.published,
            device=device,
        )
        _check_kind(settings, loaded.model.config)
        self._settings, self._torch = settings, torch
        self._model, self._images = loaded.model, loaded.processor.to_dict()
        self.digest = loaded.digest

    def prepare(self, sample: Sample) -> _Prepared:
        size = sample.image.shape[:2]
        scale = min(self._settings.short_side / min(size), 1.0)
        height, width = (max(round(side * scale), 1) for side in size)
        return _Prepared(fitted(sample.image, self._images), (height, width))

    def shape(self, prepared: _Prepared) -> Hashable:
        return prepared.pixels.shape

    def infer(self, prepared: Sequence[_Prepared]) -> list[_Map]:
        torch = self._torch
        batch = torch.from_numpy(np.stack([item.pixels for item in prepared]))
        with torch.inference_mode():
            pixels = batch.to(self._model.device).to(self._model.dtype)
            maps = self._maps(pixels)
            agreements = self._agreements(pixels, maps) if self._settings.mirror_side else ()
            stored = [
                _resized(torch, one[None, None], item.size)[0, 0].cpu().numpy()
                for one, item in zip(maps, prepared, strict=True)
            ]
        return [
            _Map(one, agreements[index] if agreements else None) for index, one in enumerate(stored)
        ]

    def _maps(self, pixels: Any) -> Any:
        """[b, 3, h, w] → [b, h, w], float32."""
        return self._model(pixels).predicted_depth.float()

    def _agreements(self, pixels: Any, maps: Any) -> list[float]:
        """Pearson's correlation of each map with that of the mirror image."""
        size = mirror_size(pixels.shape[2:], self._settings.mirror_side)
        small = self._torch.nn.functional.interpolate(
            pixels.float().flip(-1), size, mode="bilinear", antialias=True
        )
        mirrored = self._maps(small.to(pixels.dtype)).flip(-1).flatten(1)
        plain = self._torch.nn.functional.interpolate(
            maps[:, None], size, mode="bilinear", antialias=True
        ).flatten(1)
        mirrored, plain = (values - values.mean(1, keepdim=True) for values in (mirrored, plain))
        norms = (mirrored.square().sum(1) * plain.square().sum(1)).sqrt()
        return ((mirrored * plain).sum(1) / norms.clamp(min=1e-12)).cpu().tolist()

    def finish(self, prepared: _Prepared, result: _Map) -> Outcome:
        values, agreement = result.disparity, result.agreement
        if reason := self._fault(values):
            return Outcome(reason=reason, detail=f"{values.min():.4g} to {values.max():.4g}")
        if agreement is not None and not agreement >= self._settings.least_agreement:  # or NaN
            detail = f"correlation {agreement:.2f}"
            return Outcome(reason="the mirror image has another map", detail=detail)
        low, high = values.min(), values.max()
        labels: dict[str, Value] = {
            DEPTH.name: encoded((values - low) / (high - low), self._settings.bits)
        }
        if agreement is not None:
            labels[DEPTH_AGREEMENT.name] = np.asarray([agreement], np.float32)
        return Outcome(labels=labels)

    def _fault(self, values: Float32[np.ndarray, "h w"]) -> str:
        """Why a map says nothing; "" if it does."""
        if not np.isfinite(values).all():
            return "a map that is not finite"
        low, high = np.percentile(values, [2, 98])
        if high - low <= self._settings.least_spread * np.abs(values).max():
            return "a flat map"
        low, high = values.min(), values.max()
        margin = _AT_AN_END * (high - low)
        for ends in (values <= low + margin, values >= high - margin):
            if ends.mean() > self._settings.most_saturated:
                return "a saturated map"
        return ""


def mirror_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width at which the mirror image is looked at, its short side about `side`."""
    height, width = (max(round(each * side / min(size) / _PATCH), 1) * _PATCH for each in size)
    return height, width


def _check_kind(settings: DepthAnythingV2, config: Any) -> None:
    """Refuses weights whose maps are no disparities, or whose licence is that of another size."""
    weights = settings.weights or settings.published
    if getattr(config, "depth_estimation_type", "relative") != "relative":
        raise UserError(
            f"{weights} gives distances, not disparities: give "
            f"--config.experts.{settings.name}.weights those of {settings.published}"
        )
    backbone = getattr(config, "backbone_config", None)
    size = _WIDTHS.get(getattr(backbone, "hidden_size", 0), settings.size)
    if size != settings.size:
        raise UserError(
            f"{weights} is of size {size}, not {settings.size}, and the licences differ: give "
            f"--experts {settings.name}:{size}"
        )


def _resized(torch: Any, maps: Any, size: tuple[int, int]) -> Any:
    return torch.nn.functional.interpolate(maps, size, mode="bicubic", align_corners=False)


def encoded(values: Float32[np.ndarray, "h w"], bits: int) -> bytes:
    """The raster of numbers in [0, 1], in the upper bits of 16."""
    codes = np.round(values * (2**bits - 1)).astype(np.uint16) << (16 - bits)
    return decode.encode_png16(codes, compression=_COMPRESSION)
