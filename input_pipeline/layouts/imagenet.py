# SPDX-License-Identifier: Apache-2.0
"""ImageNet-1k: folders of WordNet ids, one a class, as ILSVRC2012 is unpacked."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from input_pipeline.layouts.base import Item, Layout
from input_pipeline.layouts.clip_lists import clip_list

_WORDNET_ID = re.compile(r"n\d{8}")
_CLASSES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageNet(Layout):
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

    def class_names(self) -> list[str]:
        """CLIP's names."""
        return list(clip_list("IMAGENET_CLASSNAMES"))
