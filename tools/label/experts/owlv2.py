# SPDX-License-Identifier: Apache-2.0
"""Boxes of tags by OWLv2 (arXiv 2306.09683), through `transformers`.

The network sees the image padded below and at the right to a square, and gives boxes in shares of
that square: they are scaled back by the square's side over the image's. What is kept (MTV section
2.1): scores of at least 0.2, after suppression of boxes that overlap a better one by more than 0.7
whatever their tag, at most 20, none with a side below 2 % of the image's. Scores are stored.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int64

from mtv_jax.core.config import at_least
from mtv_jax.core.fields import BOXES, PHRASES, SCORES, Field
from tools.data.depth_values import Rejected
from tools.label.base import Expert, Labeller, Labels, Licence, Sample
from tools.label.experts import hub

_TEMPLATE = "a photo of a {}"  # what the authors query with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owlv2(Expert):
    """Regions of the tags of every image.

    Attributes:
        weights: folder or hub id.
        tags: column of phrases to look for, written by an expert before.
        max_tags: looked for in an image, the first ones; fewer are filled up.
        min_score: least score.
        max_overlap: intersection over union with a better box.
        max_boxes: kept of an image.
        min_side: least side of a box, as a share of the image's.
    """

    sidecar: str = "regions_v1"
    weights: str = "google/owlv2-base-patch16-ensemble"
    tags: str = "tags"
    batch_size: int = at_least(1, 8)
    max_tags: int = at_least(1, 32)
    min_score: float = at_least(0.0, 0.2)
    max_overlap: float = at_least(0.0, 0.7)
    max_boxes: int = at_least(1, 20)
    min_side: float = at_least(0.0, 0.02)

    @property
    def licence(self) -> Licence:
        return Licence(name="Apache-2.0", commercial=True)

    def emits(self) -> tuple[Field, ...]:
        return (BOXES, PHRASES, SCORES)

    def reads(self) -> tuple[str, ...]:
        return (self.tags,)

    def load(self, device: str) -> "_Detector":
        return _Detector(self, device)


@dataclasses.dataclass(frozen=True)
class _Prepared:
    pixels: Float32[np.ndarray, "3 h w"]
    size: tuple[int, int]  # of the stored image
    tags: list[str]


class _Detector(Labeller):
    def __init__(self, settings: Owlv2, device: str):
        torch, transformers = hub.packages()
        loaded = hub.load(
            settings.weights,
            transformers.Owlv2ForObjectDetection,
            transformers.AutoProcessor,
            licence=settings.licence,
            device=device,
        )
        self._settings, self._torch = settings, torch
        self._model, self._processor = loaded.model, loaded.processor
        self.digest = loaded.digest

    def prepare(self, sample: Sample) -> _Prepared:
        tags = [bytes(tag).decode() for tag in sample.columns.get(self._settings.tags, ())]
        if not tags:
            raise Rejected("no tags", sample.key)
        pixels = self._processor.image_processor(sample.image, return_tensors="np")["pixel_values"]
        return _Prepared(
            np.asarray(pixels[0], np.float32),
            sample.image.shape[:2],
            tags[: self._settings.max_tags],
        )

    def label(self, prepared: Sequence[_Prepared]) -> list[Labels | Rejected]:
        torch, model, most = self._torch, self._model, self._settings.max_tags
        texts = [
            _TEMPLATE.format(tag)
            for item in prepared
            for tag in [*item.tags, *[""] * (most - len(item.tags))]
        ]
        tokens = self._processor.tokenizer(
            texts, padding="max_length", truncation=True, return_tensors="pt"
        ).to(model.device)
        batch = torch.from_numpy(np.stack([item.pixels for item in prepared]))
        with torch.inference_mode():
            found = model(
                pixel_values=batch.to(model.device, model.dtype),
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
            )
        logits, boxes = found.logits.float().cpu().numpy(), found.pred_boxes.float().cpu().numpy()
        return [self._kept(*one) for one in zip(logits, boxes, prepared, strict=True)]

    def _kept(
        self,
        logits: Float[np.ndarray, "n tags"],
        boxes: Float[np.ndarray, "n 4"],
        item: _Prepared,
    ) -> Labels | Rejected:
        """The regions of one image, best first; boxes come as centre and size."""
        logits = logits[:, : len(item.tags)]
        labels, scores = logits.argmax(axis=1), 1 / (1 + np.exp(-logits.max(axis=1)))
        centre, extent = boxes[:, :2], boxes[:, 2:]
        height, width = item.size
        scale = max(item.size) / np.asarray([width, height, width, height])
        corners = np.hstack([centre - extent / 2, centre + extent / 2]) * scale
        corners = np.clip(corners, 0, 1)
        sides = (corners[:, 2:] - corners[:, :2]).min(axis=1)
        sound = (scores >= self._settings.min_score) & (sides >= self._settings.min_side)
        if not sound.any():
            return Rejected("no box that is good enough", f"best score {scores.max():.3f}")
        order = np.flatnonzero(sound)[np.argsort(-scores[sound], kind="stable")]
        kept = suppressed(corners, order, self._settings.max_overlap)[: self._settings.max_boxes]
        return {
            BOXES.name: corners[kept].astype(np.float32),
            PHRASES.name: [item.tags[label] for label in labels[kept]],
            SCORES.name: scores[kept].astype(np.float32),
        }


def suppressed(
    boxes: Float[np.ndarray, "n 4"], order: Int64[np.ndarray, " k"], most: float
) -> Int64[np.ndarray, " m"]:
    """Those of `order` that overlap no earlier kept one by more than `most`."""
    kept: list[int] = []
    for index in order:
        if not kept or overlaps(boxes[index], boxes[kept]).max() <= most:
            kept.append(int(index))
    return np.asarray(kept, np.int64)


def overlaps(
    box: Float[np.ndarray, "4"], others: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, " n"]:
    """Intersection over union."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    inner = np.clip(high - low, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return inner / np.maximum(areas - inner, 1e-12)
