# SPDX-License-Identifier: Apache-2.0
"""Classes built by masons, as toys: house, windmill, lighthouse; and a robot and a traffic cone."""

from tools.scenes.parts import Part, ball, box, dome, prism, rod, turned
from tools.scenes.vary import Vary


def house(vary: Vary) -> list[Part]:
    length, width, wall, roof = vary(0.8), vary(0.65), vary(0.45), vary(0.38)
    return [
        box("walls", (0, 0, wall / 2), (width, length, wall)),
        prism("roof", (0, 0, wall + roof / 2), (width * 1.2, length * 1.12, roof)),
        box("door", (width / 2, 0, 0.15), (0.03, 0.17, 0.3), accent=True),
        box("left window", (width / 2, length * 0.3, wall * 0.55), (0.03, 0.15, 0.15), accent=True),
        box(
            "right window", (width / 2, -length * 0.3, wall * 0.55), (0.03, 0.15, 0.15), accent=True
        ),
        box(
            "chimney",
            (-width * 0.25, length * 0.25, wall + roof * 0.8),
            (0.13, 0.13, 0.32),
            accent=True,
        ),
    ]


def windmill(vary: Vary) -> list[Part]:
    height, foot, blade = vary(0.95), vary(0.32), vary(0.58)
    top = foot * 0.62
    x, hub = top + 0.14, height + 0.02
    blades = []
    for i in range(4):
        arm = [box("blade", (x, 0, hub + blade * 0.6), (0.03, 0.17, blade * 0.9))]
        arm.append(rod("spar", (x, 0, hub), (x, 0, hub + blade), 0.022))
        blades += turned(arm, "x", 90 * i, (x, 0, hub))
    return [
        rod("tower", (0, 0, 0), (0, 0, height), foot, tip=top),
        dome("cap", (0, 0, height), (top * 1.12, top * 1.12, top * 1.1), accent=True),
        rod("axle", (0, 0, hub), (x + 0.05, 0, hub), 0.05, accent=True),
        box("door", (foot * 0.93, 0, 0.14), (0.08, 0.16, 0.28), accent=True),
        *(part for part in turned(blades, "x", vary.between(0, 90), (x, 0, hub))),
    ]


def lighthouse(vary: Vary) -> list[Part]:
    height, foot, lantern = vary(1.1), vary(0.27), vary(0.2)
    top = foot * vary(0.6, 0.1)
    return [
        rod("tower", (0, 0, 0), (0, 0, height), foot, tip=top),
        rod("gallery", (0, 0, height), (0, 0, height + 0.06), top * 1.45, accent=True),
        rod("lantern", (0, 0, height + 0.06), (0, 0, height + 0.06 + lantern), top * 0.8),
        rod(
            "roof",
            (0, 0, height + 0.06 + lantern),
            (0, 0, height + lantern * 1.9),
            top * 1.15,
            tip=0.0,
            accent=True,
        ),
        box("door", (foot * 0.94, 0, 0.13), (0.08, 0.15, 0.26), accent=True),
        rod("sea wall", (0, 0, 0), (0, 0, 0.07), foot * 1.5, tip=foot * 1.4, accent=True),
    ]


def robot(vary: Vary) -> list[Part]:
    leg, torso, head, wide = vary(0.28), vary(0.42), vary(0.26), vary(0.4)
    shoulder = leg + torso
    parts = [
        box("torso", (0, 0, leg + torso / 2), (0.26, wide, torso)),
        box("head", (0, 0, shoulder + 0.06 + head / 2), (0.24, 0.3, head)),
        rod("neck", (0, 0, shoulder), (0, 0, shoulder + 0.07), 0.07, accent=True),
        rod("antenna", (0, 0, shoulder + head), (0, 0, shoulder + head + 0.2), 0.018, accent=True),
        ball("antenna tip", (0, 0, shoulder + head + 0.22), 0.04, accent=True),
        box(
            "chest panel",
            (0.13, 0, leg + torso * 0.62),
            (0.03, wide * 0.55, torso * 0.4),
            accent=True,
        ),
    ]
    swing = vary.between(-0.15, 0.25)
    for side, name in ((1, "left"), (-1, "right")):
        y = side * (wide / 2 + 0.07)
        hand = (0.05 + swing * side, y * 1.05, leg * 0.95)
        parts += [
            rod(f"{name} arm", (0, y, shoulder - 0.07), hand, 0.055),
            ball(f"{name} hand", hand, 0.075, accent=True),
            rod(f"{name} leg", (0, side * wide * 0.25, 0.05), (0, side * wide * 0.25, leg), 0.07),
            box(f"{name} foot", (0.05, side * wide * 0.25, 0.04), (0.26, 0.17, 0.08), accent=True),
            ball(f"{name} eye", (0.12, side * 0.07, shoulder + 0.1 + head / 2), 0.045, accent=True),
        ]
    return parts


def traffic_cone(vary: Vary) -> list[Part]:
    base, height, foot = vary(0.62), vary(0.85), vary(0.22)
    band_low, band_high = height * 0.45, height * 0.65

    def radius(z: float) -> float:
        return foot + (0.04 - foot) * z / height

    return [
        box("base", (0, 0, 0.03), (base, base, 0.06)),
        rod("cone", (0, 0, 0.06), (0, 0, 0.06 + height), foot, tip=0.04),
        rod(
            "band",
            (0, 0, 0.06 + band_low),
            (0, 0, 0.06 + band_high),
            radius(band_low) + 0.012,
            tip=radius(band_high) + 0.012,
            accent=True,
        ),
    ]
