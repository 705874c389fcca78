# SPDX-License-Identifier: Apache-2.0
"""Parts of objects in made scenes, by name: pairs of scenes whose main object is of one class.

A keypoint is the middle of a part that has its name ("class/part") to itself in its object, and
that nothing hides. A scene in which a name of its class occurs twice shows two such objects: it is
left out, as the box would be around both.
"""

import dataclasses
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8

from input_pipeline.eval_pairs import KeypointPair, KeypointPairs, padded
from input_pipeline.made_scenes import MadeScenes

_SEED = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneParts(MadeScenes, KeypointPairs):
    """The scenes' first views.

    Attributes:
        category: class whose scenes these are; "" for all.
    """

    category: str = ""

    columns: ClassVar[tuple[str, ...]] = (
        "class_id",
        "segmentation",
        "keypoints",
        "keypoint_names",
        "keypoint_visible",
    )

    def open(self) -> None:
        """Raises a `UserError`: no such store, or scenes without these labels."""
        super().open()
        self.categories()

    @property
    def _rows(self) -> Sequence[int]:
        """Scenes by row."""
        if not self.category:
            return range(len(self.scenes))
        wanted = self.scenes.class_names().index(self.category)
        return np.flatnonzero(self._classes == wanted).tolist()

    @property
    def _classes(self) -> np.ndarray:
        return self.numbers("class_id", 1)[:, 0].astype(np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def categories(self) -> list[str]:
        """The classes of the scenes' main objects."""
        names = self.scenes.class_names()
        return sorted({names[label] for label in self._classes})

    def only(self, category: str) -> "SceneParts":
        """The scenes of one class."""
        return dataclasses.replace(self, category=category)

    def views(self) -> Sequence[str]:
        """All at once."""
        return ("all",)

    def image(self, index: int) -> UInt8[np.ndarray, "s s 3"]:
        """Padded to a square."""
        return padded(self.scenes.image(self._rows[index]))

    def pairs(self, view: str, *, count: int, size: int) -> list[KeypointPair]:
        """The first pairs of a shuffle that share a part; keypoints lie where they lie."""
        del view, size
        things = [thing for row in range(len(self)) if (thing := self._thing(row))]
        every = list(itertools.permutations(things, 2))
        random.Random(_SEED).shuffle(every)
        sharing = (pair for pair in every if pair[0].places.keys() & pair[1].places.keys())
        return [_pair(*pair) for pair in itertools.islice(sharing, count)]

    def _thing(self, row: int) -> "_Thing | None":
        """A scene's main object, if it is the only one of its class and can be seen."""
        scene = self._rows[row]
        class_id = self._classes[scene]
        own = self.scenes.class_names()[class_id] + "/"
        names = [name.decode() for name in self.column("keypoint_names")[scene] or ()]
        inside = self.scenes.raster(scene, "segmentation") == class_id + 1
        mine = [name for name in names if name.startswith(own)]
        if len({*mine}) < len(mine) or not inside.any():
            return None
        height, width = inside.shape
        side = max(height, width)
        points = np.reshape(self.column("keypoints")[scene], (-1, 2)) * [width, height] / side
        shown = self.column("keypoint_visible")[scene]
        places = {
            name: point
            for name, point, visible in zip(names, points, shown, strict=True)
            if visible and name.startswith(own)
        }
        extents = [np.ptp(np.flatnonzero(inside.any(axis=axis))) + 1 for axis in (0, 1)]
        return _Thing(row, places, max(extents) / side)


class _Thing(NamedTuple):
    row: int
    places: Mapping[str, Float64[np.ndarray, "2"]]  # of visible parts, in the padded square
    longer: float  # side of the box around its pixels


def _pair(source: _Thing, target: _Thing) -> KeypointPair:
    shared = sorted(source.places.keys() & target.places.keys())
    return KeypointPair(
        source=source.row,
        target=target.row,
        source_points=np.stack([source.places[name] for name in shared]).astype(np.float64),
        target_points=np.stack([target.places[name] for name in shared]).astype(np.float64),
        scale=float(target.longer),
    )
