# SPDX-License-Identifier: Apache-2.0
"""COCO captions in Karpathy's split (`dataset_coco.json`)."""

import dataclasses
from collections.abc import Sequence

from input_pipeline.layouts.base import Item, Layout


@dataclasses.dataclass(frozen=True, kw_only=True)
class CocoCaptions(Layout):
    """`ROOT/val2014/COCO_val2014_000000391895.jpg` and `ROOT/dataset_coco.json`.

    Attributes:
        split: of Karpathy: "test", "val", "train" or "restval".
    """

    split: str = "test"

    @property
    def source(self) -> str:
        return (
            "http://images.cocodataset.org/zips/val2014.zip (train2014.zip for the split train) "
            "with dataset_coco.json of "
            "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
        )

    def find(self) -> Sequence[Item[tuple[str, ...]]]:
        root = self.folder("")
        try:
            entries = self.json("dataset_coco.json")["images"]
            return [
                Item(
                    root / entry["filepath"] / entry["filename"],
                    tuple(sentence["raw"] for sentence in entry["sentences"]),
                )
                for entry in entries
                if entry["split"] == self.split
            ]
        except (KeyError, TypeError) as error:
            raise self.damaged(f"dataset_coco.json is not Karpathy's: {error!r}") from error

    def captions(self) -> list[tuple[str, ...]]:
        """Five or more an image, in the file's order."""
        return [item.extra for item in self.items]
