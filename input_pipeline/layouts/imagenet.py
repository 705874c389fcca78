# SPDX-License-Identifier: Apache-2.0
"""ImageNet-1k: folders of WordNet ids, one a class, as ILSVRC2012 is unpacked."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8

from input_pipeline.layouts.base import Item, Layout
from input_pipeline.layouts.clip_lists import clip_list

_WORDNET_ID = re.compile(r"n\d{8}")
_CLASSES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageNetImages(Layout):
    """What both layouts share.

    Attributes:
        central: share of each side that is kept, around the middle; big_vision's evaluator of
            classes keeps 0.875, MTV's keeps all.
    """

    central: float = 1.0

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image, or its middle."""
        image = super().image(index)
        lengths = [max(round(side * self.central), 1) for side in image.shape[:2]]
        top, left = ((side - n) // 2 for side, n in zip(image.shape[:2], lengths, strict=True))
        return image[top : top + lengths[0], left : left + lengths[1]]

    def class_names(self) -> list[str]:
        """CLIP's names."""
        return list(clip_list("IMAGENET_CLASSNAMES"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageNet(ImageNetImages):
    """`ROOT/SPLIT/n01440764/ILSVRC2012_val_00000293.JPEG`; classes in the order of their ids.

    Attributes:
        split: "val" or "train", or whatever the folder is called.
    """

    split: str = "val"

    @property
    def source(self) -> str:
        return (
            "https://image-net.org/download-images (ILSVRC 2012; put the validation images into a "
            "folder for each class)"
        )

    def find(self) -> Sequence[Item[int]]:
        split = self.folder(self.split)
        folders = sorted(p for p in split.iterdir() if p.is_dir() and _WORDNET_ID.fullmatch(p.name))
        if len(folders) != _CLASSES:
            flat = "; its images are not in folders yet" if any(split.glob("*.JPEG")) else ""
            raise self.damaged(
                f"{self.split} has {len(folders)} folders of classes, not {_CLASSES}{flat}"
            )
        return [
            Item(path, label)
            for label, folder in enumerate(folders)
            for path in sorted(folder.glob("*.[jJ][pP]*[gG]"))
        ]

    def labels(self) -> Int64[np.ndarray, " b"]:
        """Classes in the order of their WordNet ids."""
        return np.asarray([item.extra for item in self.items], np.int64)
