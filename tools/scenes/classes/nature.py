# SPDX-License-Identifier: Apache-2.0
"""Classes that grow or walk: plants, animals, a snowman."""

import math

from tools.scenes.parts import Part, ball, dome, rod, turned
from tools.scenes.vary import Vary


def snowman(vary: Vary) -> list[Part]:
    low, middle, head = vary(0.33, 0.1), vary(0.24, 0.1), vary(0.18, 0.1)
    waist, neck = low * 1.85 + middle * 0.7, low * 1.85 + middle * 1.55 + head * 0.7
    hat = neck + head * 0.75
    return [
        ball("base", (0, 0, low * 0.95), low),
        ball("belly", (0, 0, waist), middle),
        ball("head", (0, 0, neck), head),
        rod(
            "nose", (head * 0.8, 0, neck), (head * 0.8 + 0.2, 0, neck), 0.045, tip=0.0, accent=True
        ),
        rod("brim", (0, 0, hat), (0, 0, hat + 0.03), head * 1.25, accent=True),
        rod("hat", (0, 0, hat), (0, 0, hat + vary(0.2)), head * 0.78, accent=True),
        *(
            rod("arm", (0, s * 0.18, waist + 0.02), (0, s * 0.52, waist + 0.2), 0.025, accent=True)
            for s in (1, -1)
        ),
    ]


def mushroom(vary: Vary) -> list[Part]:
    stem, cap, rise = vary(0.5), vary(0.42), vary(0.36)
    return [
        rod("stem", (0, 0, 0), (0, 0, stem + 0.05), vary(0.16), tip=vary(0.11), accent=True),
        dome("cap", (0, 0, stem), (cap, cap, rise), low=-0.15),
    ]


def pine_tree(vary: Vary) -> list[Part]:
    trunk, tier, wide = vary(0.22), vary(0.42), vary(0.4)
    tiers = [
        rod(
            f"{name} tier",
            (0, 0, trunk + i * tier * 0.62),
            (0, 0, trunk + i * tier * 0.62 + tier),
            wide * (1 - 0.24 * i),
            tip=0.0,
        )
        for i, name in enumerate(("lower", "middle", "upper"))
    ]
    return [rod("trunk", (0, 0, 0), (0, 0, trunk + 0.1), 0.08, accent=True), *tiers]


def palm_tree(vary: Vary) -> list[Part]:
    height, frond, lean = vary(0.95), vary(0.52), vary.between(0.05, 0.25)
    knee = (lean * 0.3, 0.0, height * 0.5)
    top = (lean, 0.0, height)
    leaf = ball("frond", (top[0] + frond * 0.5, 0, height), (frond * 0.55, 0.1, 0.03))
    fronds = []
    for i in range(7):
        drooping = turned([leaf], "y", vary.between(12, 32), top)
        fronds += turned(drooping, "z", 360 / 7 * i + vary.between(-10, 10), top)
    return [
        rod("lower trunk", (0, 0, 0), knee, 0.085, tip=0.07, accent=True),
        rod("upper trunk", knee, top, 0.07, tip=0.055, accent=True),
        ball("crown", top, 0.09),
        *fronds,
    ]


def cactus(vary: Vary) -> list[Part]:
    height, radius = vary(0.95), vary(0.13)
    pot = vary(0.2)
    base = 0.24
    parts = [
        rod("pot", (0, 0, 0), (0, 0, base), pot * 0.8, tip=pot * 1.15, accent=True),
        rod("trunk", (0, 0, base * 0.9), (0, 0, base + height), radius),
        ball("top", (0, 0, base + height), radius),
    ]
    for side, name in ((1, "left"), (-1, "right")):
        z, reach, tall = base + height * vary.between(0.3, 0.6), radius + 0.17, vary(0.3)
        elbow = (0, side * reach, z)
        tip = (0, side * reach, z + tall)
        parts += [
            rod("branch", (0, 0, z), elbow, radius * 0.62),
            ball("elbow", elbow, radius * 0.62),
            rod(f"{name} arm", elbow, tip, radius * 0.62),
            ball("arm end", tip, radius * 0.62),
        ]
    return parts


def _legs(x: float, y: float, height: float, radius: float) -> list[Part]:
    """Four straight legs at (+-x, +-y)."""
    return [
        rod(f"{end} {side} leg", (along, across, 0), (along * 0.9, across * 0.9, height), radius)
        for along, end in ((x, "front"), (-x, "hind"))
        for across, side in ((y, "left"), (-y, "right"))
    ]


def dog(vary: Vary) -> list[Part]:
    leg, body, girth, head = vary(0.36), vary(0.42), vary(0.16), vary(0.16)
    back = leg + girth * 0.6
    crown = back + girth + head * 0.8
    nose = body + head * 0.6
    return [
        ball("body", (0, 0, back), (body, girth, girth)),
        rod("neck", (body * 0.7, 0, back), (nose - 0.05, 0, crown), 0.1, tip=0.085),
        ball("head", (nose, 0, crown), (head * 1.05, head * 0.85, head * 0.85)),
        rod(
            "muzzle",
            (nose, 0, crown - 0.03),
            (nose + head * 1.75, 0, crown - 0.06),
            head * 0.55,
            tip=head * 0.4,
        ),
        ball("nose", (nose + head * 1.8, 0, crown - 0.03), 0.045, accent=True),
        ball(
            "left ear",
            (nose - 0.04, head * 0.85, crown - 0.02),
            (0.06, 0.035, head * 0.8),
            accent=True,
        ),
        ball(
            "right ear",
            (nose - 0.04, -head * 0.85, crown - 0.02),
            (0.06, 0.035, head * 0.8),
            accent=True,
        ),
        rod(
            "tail",
            (-body * 0.9, 0, back + 0.05),
            (-body - 0.2, 0, back + vary(0.32)),
            0.05,
            tip=0.02,
        ),
        *_legs(body * 0.68, girth * 0.7, back, 0.055),
    ]


def giraffe(vary: Vary) -> list[Part]:
    leg, body, neck, girth = vary(0.5), vary(0.3), vary(0.62), vary(0.15)
    back = leg + girth * 0.6
    top = (body * 0.7 + neck * 0.3, 0, back + neck)
    return [
        ball("body", (0, 0, back), (body, girth, girth)),
        rod("neck", (body * 0.6, 0, back), top, 0.09, tip=0.055),
        ball("head", (top[0] + 0.07, 0, top[2]), (0.15, 0.07, 0.075)),
        rod(
            "left horn",
            (top[0], 0.04, top[2]),
            (top[0] - 0.02, 0.05, top[2] + 0.16),
            0.018,
            accent=True,
        ),
        rod(
            "right horn",
            (top[0], -0.04, top[2]),
            (top[0] - 0.02, -0.05, top[2] + 0.16),
            0.018,
            accent=True,
        ),
        rod(
            "tail",
            (-body * 0.9, 0, back),
            (-body - 0.12, 0, back - 0.3),
            0.03,
            tip=0.015,
            accent=True,
        ),
        *_legs(body * 0.7, girth * 0.7, back, 0.045),
    ]


def duck(vary: Vary) -> list[Part]:
    length, girth, neck, head = vary(0.42), vary(0.26), vary(0.3), vary(0.17)
    z = girth * 0.9
    crown = z + girth * 0.5 + neck
    return [
        ball("body", (0, 0, z), (length, girth, girth * 0.9)),
        rod("neck", (length * 0.6, 0, z), (length * 0.7, 0, crown), 0.13, tip=0.095),
        ball("head", (length * 0.75, 0, crown), head),
        ball(
            "beak",
            (length * 0.75 + head * 1.25, 0, crown - 0.03),
            (head * 0.75, head * 0.6, 0.045),
            accent=True,
        ),
        rod("tail", (-length * 0.75, 0, z + 0.04), (-length * 1.25, 0, z + 0.24), 0.13, tip=0.02),
        ball(
            "left wing",
            (-0.06, girth * 0.85, z + 0.05),
            (length * 0.6, 0.07, girth * 0.5),
            accent=True,
        ),
        ball(
            "right wing",
            (-0.06, -girth * 0.85, z + 0.05),
            (length * 0.6, 0.07, girth * 0.5),
            accent=True,
        ),
    ]


def spider(vary: Vary) -> list[Part]:
    body, head, reach, knee = vary(0.24), vary(0.14), vary(0.6), vary(0.36)
    z = 0.26
    parts = [
        ball("abdomen", (-body * 0.9, 0, z + 0.03), (body * 1.15, body, body * 0.85)),
        ball("head", (head * 1.1, 0, z), head),
        ball("left eye", (head * 1.9, 0.06, z + 0.06), 0.045, accent=True),
        ball("right eye", (head * 1.9, -0.06, z + 0.06), 0.045, accent=True),
    ]
    for side in (1, -1):
        for spoke in (25, 65, 105, 145):
            x, y = math.cos(math.radians(spoke)), side * math.sin(math.radians(spoke))
            joint = (x * reach * 0.55, y * reach * 0.55, knee + 0.08)
            parts.append(rod("thigh", (x * 0.06, y * 0.06, z), joint, 0.032))
            parts.append(rod("shin", joint, (x * reach, y * reach, 0), 0.032, tip=0.018))
    return parts
