# SPDX-License-Identifier: Apache-2.0
"""Boxes of tags by OWLv2 (arXiv 2306.09683), through `transformers`.

The network sees the image padded below and at the right to a square, and gives boxes in shares of
that square: they are scaled back by the square's side over the image's. What is kept is up to
`tools.label.boxes`; scores are stored, and whether the caption mentions the phrase.
"""

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Float32

from mtv_jax.core.config import at_least
from mtv_jax.core.fields import BOXES, CAPTION, MENTIONED, PHRASES, SCORES, Field
from tools.data.depth_values import Rejected
from tools.label.base import Expert, Labeller, Licence, Outcome, Sample
from tools.label.boxes import BoxLimits, Detections, keep, mentions
from tools.label.experts import hub
from tools.label.experts.pixels import padded_square
from tools.label.tagging import merged_tags, tag_columns

_PUBLISHED = "google/owlv2-base-patch16-ensemble"
_TEMPLATE = "a photo of a {}"  # what the authors query with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owlv2(BoxLimits, Expert):
    """Regions of the tags of every image.

    Attributes:
        weights: folder or hub id.
        tags: columns of phrases to look for; none for all that the store has.
        max_tags: looked for in an image, the first ones; fewer are filled up.
    """

    sidecar: str = "regions_v1"
    weights: str = _PUBLISHED
    tags: tuple[str, ...] = ()
    batch_size: int = at_least(1, 8)
    max_tags: int = at_least(1, 32)

    @property
    def licence(self) -> Licence:
        return Licence(name="Apache-2.0", commercial=True)

    def emits(self) -> tuple[Field, ...]:
        return (BOXES, PHRASES, SCORES, MENTIONED)

    def reads(self, columns: Collection[str]) -> tuple[str, ...]:
        captions = {CAPTION.name}.intersection(columns)
        return (*(self.tags or tag_columns(columns) or ("ram_tags",)), *captions)

    def load(self, device: str) -> "_Detector":
        return _Detector(self, device)


@dataclasses.dataclass(frozen=True)
class _Prepared:
    pixels: Float32[np.ndarray, "3 h w"]
    size: tuple[int, int]  # of the stored image
    tags: list[str]
    caption: str


@dataclasses.dataclass(frozen=True)
class _Found:
    """What the network says: a logit for every box and tag; boxes as centre and size."""

    logits: Float32[np.ndarray, "n tags"]
    boxes: Float32[np.ndarray, "n 4"]


class _Detector(Labeller):
    def __init__(self, settings: Owlv2, device: str):
        torch, transformers = hub.packages()
        loaded = hub.load(
            settings,
            settings.weights,
            transformers.Owlv2ForObjectDetection,
            transformers.AutoProcessor,
            published=_PUBLISHED,
            device=device,
        )
        self._settings, self._torch = settings, torch
        self._model, self._tokenizer = loaded.model, loaded.processor.tokenizer
        self._images = loaded.processor.image_processor.to_dict()
        self.digest = loaded.digest

    def prepare(self, sample: Sample) -> _Prepared:
        names = self._settings.tags or tag_columns(sample.columns)
        tags = merged_tags(sample.columns, names, self._settings.max_tags)
        if not tags:
            raise Rejected("no tags", "")
        (caption,) = sample.columns.get(CAPTION.name) or [b""]
        return _Prepared(
            padded_square(sample.image, self._images),
            sample.image.shape[:2],
            tags,
            bytes(caption).decode(errors="replace"),
        )

    def infer(self, prepared: Sequence[_Prepared]) -> list[_Found]:
        torch, model, most = self._torch, self._model, self._settings.max_tags
        texts = [
            _TEMPLATE.format(tag)
            for item in prepared
            for tag in [*item.tags, *[""] * (most - len(item.tags))]
        ]
        tokens = self._tokenizer(
            texts, padding="max_length", truncation=True, return_tensors="pt"
        ).to(model.device)
        batch = torch.from_numpy(np.stack([item.pixels for item in prepared]))
        with torch.inference_mode():
            found = model(
                pixel_values=batch.to(model.device).to(model.dtype),
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
            )
        logits, boxes = found.logits.float().cpu().numpy(), found.pred_boxes.float().cpu().numpy()
        return [_Found(*one) for one in zip(logits, boxes, strict=True)]

    def finish(self, prepared: _Prepared, result: _Found) -> Outcome:
        logits = result.logits[:, : len(prepared.tags)]
        labels, scores = logits.argmax(axis=1), 1 / (1 + np.exp(-logits.max(axis=1)))
        mentioned = np.asarray([mentions(prepared.caption, tag) for tag in prepared.tags])
        phrases = [prepared.tags[label] for label in labels]
        boxes = _in_the_image(result.boxes, prepared.size)
        found = Detections(boxes=boxes, scores=scores, phrases=phrases, mentioned=mentioned[labels])
        rows, dropped = dataclasses.astuple(keep(found, self._settings))
        if not rows:
            best = f"best score {scores.max():.3f}"
            return Outcome(reason="no box that is good enough", detail=best, dropped=dropped)
        columns = {
            BOXES.name: boxes[rows].astype(np.float32),
            PHRASES.name: [phrases[row] for row in rows],
            SCORES.name: scores[rows].astype(np.float32),
            MENTIONED.name: found.mentioned[rows].astype(np.int64),
        }
        return Outcome(labels=columns, dropped=dropped)


def _in_the_image(
    boxes: Float32[np.ndarray, "n 4"], size: tuple[int, int]
) -> Float32[np.ndarray, "n 4"]:
    """Corners in shares of the image, cut at its border, of boxes in shares of the square."""
    height, width = size
    centre, extent = boxes[:, :2], boxes[:, 2:]
    corners = np.hstack([centre - extent / 2, centre + extent / 2])
    return np.clip(corners * (max(size) / np.asarray([width, height, width, height])), 0, 1)
