# SPDX-License-Identifier: Apache-2.0
"""The classes in the order of their ids. The order is part of the data format: append only."""

import dataclasses
from collections.abc import Callable

from tools.scenes.classes import buildings, furniture, nature, things, vehicles
from tools.scenes.parts import Part
from tools.scenes.vary import Vary


@dataclasses.dataclass(frozen=True)
class ObjectClass:
    """A kind of object: names[0] is its name, the others are synonyms used in captions."""

    names: tuple[str, ...]
    build: Callable[[Vary], list[Part]]

    @property
    def name(self) -> str:
        return self.names[0]


CLASSES = (
    ObjectClass(("chair",), furniture.chair),
    ObjectClass(("table",), furniture.table),
    ObjectClass(("bed",), furniture.bed),
    ObjectClass(("lamp",), furniture.lamp),
    ObjectClass(("stepladder", "ladder"), furniture.stepladder),
    ObjectClass(("mug", "cup"), things.mug),
    ObjectClass(("bottle", "flask"), things.bottle),
    ObjectClass(("goblet", "chalice"), things.goblet),
    ObjectClass(("teapot", "kettle"), things.teapot),
    ObjectClass(("umbrella", "parasol"), things.umbrella),
    ObjectClass(("hammer",), things.hammer),
    ObjectClass(("dumbbell", "barbell"), things.dumbbell),
    ObjectClass(("guitar",), things.guitar),
    ObjectClass(("car", "automobile"), vehicles.car),
    ObjectClass(("bicycle", "bike"), vehicles.bicycle),
    ObjectClass(("airplane", "plane"), vehicles.airplane),
    ObjectClass(("helicopter", "chopper"), vehicles.helicopter),
    ObjectClass(("rocket", "spaceship"), vehicles.rocket),
    ObjectClass(("sailboat", "sailing boat"), vehicles.sailboat),
    ObjectClass(("house", "cottage"), buildings.house),
    ObjectClass(("windmill",), buildings.windmill),
    ObjectClass(("lighthouse",), buildings.lighthouse),
    ObjectClass(("robot", "android"), buildings.robot),
    ObjectClass(("traffic cone", "pylon"), buildings.traffic_cone),
    ObjectClass(("snowman",), nature.snowman),
    ObjectClass(("mushroom", "toadstool"), nature.mushroom),
    ObjectClass(("pine tree", "fir tree"), nature.pine_tree),
    ObjectClass(("palm tree", "palm"), nature.palm_tree),
    ObjectClass(("cactus",), nature.cactus),
    ObjectClass(("dog", "hound"), nature.dog),
    ObjectClass(("giraffe",), nature.giraffe),
    ObjectClass(("duck",), nature.duck),
    ObjectClass(("spider",), nature.spider),
)
