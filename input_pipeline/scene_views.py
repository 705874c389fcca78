# SPDX-License-Identifier: Apache-2.0
"""Two views of every made scene, with the exact depth and pose of both.

Points of the first view are those of its objects, of the second all whose depth is known: what is
looked for is an object, and what it could be confused with is the whole picture. Floor and walls
are not looked for: they reach far beyond any distance in centimetres, and much of them has nothing
to be found by. Pictures are squashed as a whole; focal lengths follow along each axis.
"""

import dataclasses
import logging
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from input_pipeline import decode
from input_pipeline.eval_pairs import TwoViews, ViewPair, relative_degrees
from input_pipeline.made_scenes import MadeScenes

_TOGETHER = 32  # scenes whose features are held at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneViews(MadeScenes, TwoViews):
    """Row 2i is the first view of scene i, row 2i + 1 the second.

    Attributes:
        start: the first scene.
        stop: the scene before which it ends; -1 for the end of the store.
    """

    start: int = 0
    stop: int = -1

    columns: ClassVar[tuple[str, ...]] = (
        "segmentation",
        "metric_depth",
        "pose",
        "intrinsics",
        "view2_image",
        "view2_metric_depth",
        "view2_pose",
    )

    def open(self) -> None:
        """Raises a `UserError`: no such store, or scenes without these labels."""
        super().open()
        for row in range(min(len(self), 2)):
            self.pose(row)
            self.focal(row, 1)

    @property
    def _span(self) -> range:
        every = range(len(self.scenes))
        return every[self.start : None if self.stop < 0 else self.stop]

    def __len__(self) -> int:
        return 2 * len(self._span)

    def parts(self) -> "list[SceneViews]":
        """Runs of scenes."""
        starts = self._span[::_TOGETHER]
        return [
            dataclasses.replace(self, start=i, stop=min(i + _TOGETHER, self._span.stop))
            for i in starts
        ]

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """One view; black, and logged, if it cannot be read."""
        scene, second = self._view(index)
        if not second:
            return self.scenes.image(scene)
        try:
            return decode.decode_image(self.column("view2_image")[scene][0])
        except (decode.DecodeError, TypeError) as error:
            logging.warning("unreadable: second view %d of %s: %s", scene, self, error)
            return np.zeros((8, 8, 3), np.uint8)

    def pairs(self) -> list[ViewPair]:
        """The two views of every scene."""
        found = []
        for first in range(0, len(self), 2):
            rotations = np.stack([self.pose(row)[:3, :3] for row in (first, first + 1)])
            degrees = float(relative_degrees(rotations)[0, 1])
            found.append(ViewPair(first, first + 1, degrees))
        return found

    def points(self, index: int, side: int) -> Float32[np.ndarray, "side side 3"]:
        """Of the pixels in the middle of `side` x `side` cells; z = 0 off the objects, or sky."""
        scene, second = self._view(index)
        depth = self._depth(index)
        if not second:
            segments = self.scenes.raster(scene, "segmentation")
            depth = np.where(segments > 0, depth, 0) if segments.shape == depth.shape else 0 * depth
        rows, columns = (((np.arange(side) + 0.5) * n / side).astype(int) for n in depth.shape)
        z = depth[rows[:, None], columns]
        fx, fy, cx, cy = self.numbers("intrinsics", 4)[scene]
        x = z * (columns + 0.5 - cx) / fx
        y = z * (rows[:, None] + 0.5 - cy) / fy
        return np.stack([x, y, z], axis=-1).astype(np.float32)

    def focal(self, index: int, size: int) -> Float64[np.ndarray, "2"]:
        """Of the squashed view: one that is not square has two."""
        height, width = self._depth(index).shape
        return self.numbers("intrinsics", 4)[self._view(index)[0]][:2] * size / [width, height]

    def pose(self, index: int) -> Float64[np.ndarray, "4 4"]:
        """From the world to the camera, metres."""
        scene, second = self._view(index)
        return self.numbers("view2_pose" if second else "pose", 16)[scene].reshape(4, 4)

    def _view(self, index: int) -> tuple[int, int]:
        """The scene, and whether it is its second view."""
        return self._span[index // 2], index % 2

    def _depth(self, index: int) -> Float64[np.ndarray, "h w"]:
        scene, second = self._view(index)
        name = "view2_metric_depth" if second else "metric_depth"
        return self.scenes.raster(scene, name) / 1000.0
