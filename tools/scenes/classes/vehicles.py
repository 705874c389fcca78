# SPDX-License-Identifier: Apache-2.0
"""Classes that travel: on wheels, on water, in the air."""

from tools.scenes.parts import Part, ball, box, dome, ring, rod, shifted, turned, wedge
from tools.scenes.vary import Vary


def _wheels(x: float, y: float, radius: float) -> list[Part]:
    """Four wheels at (+-x, +-y), standing on the ground."""
    wheels = []
    for along, end in ((x, "front"), (-x, "rear")):
        for across, side in ((y, "left"), (-y, "right")):
            inner, outer = (along, across * 0.8, radius), (along, across * 1.06, radius)
            wheels.append(rod(f"{end} {side} wheel", inner, outer, radius, accent=True))
    return wheels


def car(vary: Vary) -> list[Part]:
    length, width, wheel = vary(1.3), vary(0.58), vary(0.15)
    height, cabin = vary(0.24), vary(0.26)
    floor = wheel * 0.75
    top = floor + height
    return [
        box("body", (0, 0, floor + height / 2), (length, width, height)),
        box("cabin", (-0.08, 0, top + cabin / 2), (length * 0.4, width * 0.86, cabin)),
        wedge(
            "windscreen",
            (length * 0.22, 0, top + cabin / 2),
            (length * 0.22, width * 0.86, cabin),
            accent=True,
        ),
        *turned(
            [
                wedge(
                    "rear window",
                    (0.08 + length * 0.3, 0, top + cabin / 2),
                    (length * 0.12, width * 0.86, cabin),
                    accent=True,
                )
            ],
            "z",
            180,
        ),
        *_wheels(length * 0.31, width / 2, wheel),
    ]


def bicycle(vary: Vary) -> list[Part]:
    wheel, base = vary(0.33), vary(0.95)
    x, hub = base / 2, wheel + 0.03
    saddle, bars = (-0.2, 0, hub + 0.42), (0.33, 0, hub + 0.48)
    crank = (-0.05, 0, hub)
    parts = [
        ring("tyre", (end, 0, hub), wheel, 0.04, axis=(0, 1, 0), toward=(0, 0, 1))
        for end in (x, -x)
    ]
    tubes = (
        (crank, saddle),
        (crank, (0.3, 0, hub + 0.34)),
        ((-x, 0, hub), crank),
        ((-x, 0, hub), (-0.17, 0, hub + 0.32)),
        ((-0.17, 0, hub + 0.32), (0.29, 0, hub + 0.34)),
        ((x, 0, hub), bars),
    )
    parts += [rod("tube", start, end, 0.033) for start, end in tubes]
    return [
        *parts,
        ball("saddle", saddle, (0.15, 0.08, 0.05), accent=True),
        rod("handlebar", (bars[0], -0.22, bars[2]), (bars[0], 0.22, bars[2]), 0.03, accent=True),
        rod("front hub", (x, -0.05, hub), (x, 0.05, hub), 0.06),
        rod("rear hub", (-x, -0.05, hub), (-x, 0.05, hub), 0.06),
    ]


def airplane(vary: Vary) -> list[Part]:
    length, span, radius = vary(0.75), vary(0.72), vary(0.14)
    z = radius + 0.16
    parts = [
        ball("fuselage", (0, 0, z), (length, radius, radius)),
        ball(
            "cockpit",
            (length * 0.55, 0, z + radius * 0.55),
            (0.16, radius * 0.6, radius * 0.5),
            accent=True,
        ),
        *turned([wedge("fin", (length * 0.82, 0, z + 0.16), (0.26, 0.05, 0.32))], "z", 180),
    ]
    for side, name in ((1, "left"), (-1, "right")):
        wing = ball(f"{name} wing", (0, side * span / 2, z), (0.17, span / 2, 0.03))
        parts += turned([wing], "z", side * vary.between(5, 20))
        parts.append(
            ball(f"{name} stabiliser", (-length * 0.85, side * 0.16, z + 0.05), (0.1, 0.2, 0.025))
        )
        parts.append(
            rod(
                "engine",
                (0, side * span * 0.45, z - 0.07),
                (0.24, side * span * 0.45, z - 0.07),
                0.06,
                accent=True,
            )
        )
    parts += [
        rod("strut", (x, y, 0), (x, y, z), 0.025, accent=True)
        for x, y in ((length * 0.6, 0), (0, 0.1), (0, -0.1))
    ]
    return parts


def helicopter(vary: Vary) -> list[Part]:
    body, tail, blade = vary(0.3), vary(0.75), vary(0.62)
    z, high = body + 0.2, body * 1.9 + 0.3
    rotor = [
        box("blade", (0, 0, high), (2 * blade, 0.08, 0.025)),
        box("blade", (0, 0, high), (0.08, 2 * blade, 0.025)),
    ]
    parts = [
        ball("cabin", (0, 0, z), (body * 1.3, body * 0.85, body * 0.9)),
        dome(
            "window",
            (body * 0.25, 0, z + 0.02),
            (body * 1.1, body * 0.8, body * 0.8),
            low=0.4,
            accent=True,
        ),
        rod("tail boom", (-body, 0, z + 0.05), (-body - tail, 0, z + 0.14), 0.09, tip=0.045),
        box("tail fin", (-body - tail, 0, z + 0.22), (0.12, 0.04, 0.32)),
        rod("mast", (0, 0, z), (0, 0, high + 0.04), 0.04, accent=True),
        *turned(rotor, "z", vary.between(0, 90)),
    ]
    for y in (0.2, -0.2):
        parts.append(rod("skid", (-0.32, y, 0.03), (0.36, y, 0.03), 0.03, accent=True))
        parts += [
            rod("strut", (x, y, 0.03), (x, y * 0.6, z), 0.025, accent=True) for x in (0.17, -0.17)
        ]
    return parts


def rocket(vary: Vary) -> list[Part]:
    radius, height, nose = vary(0.2), vary(0.85), vary(0.42)
    foot = 0.16
    fin = wedge("fin", (radius + 0.1, 0, foot + 0.13), (0.26, 0.05, 0.42))
    fins = vary.pick((3, 4))
    return [
        rod("body", (0, 0, foot), (0, 0, foot + height), radius),
        rod(
            "nose",
            (0, 0, foot + height),
            (0, 0, foot + height + nose),
            radius,
            tip=0.0,
            accent=True,
        ),
        rod("nozzle", (0, 0, 0), (0, 0, foot), radius * 0.85, tip=radius * 0.5, accent=True),
        ball("window", (radius * 0.75, 0, foot + height * 0.7), radius * 0.42, accent=True),
        *(part for i in range(fins) for part in turned([fin], "z", 360 / fins * (i + 0.5))),
    ]


def sailboat(vary: Vary) -> list[Part]:
    length, width, mast = vary(0.62), vary(0.24), vary(1.15)
    deck = 0.24
    main = wedge("main sail", (-0.26, 0, deck + 0.14 + mast * 0.4), (0.48, 0.03, mast * 0.8))
    main_sail = shifted(turned([main], "z", 180, (-0.26, 0, 0)), (0, 0, 0))
    return [
        dome("hull", (0, 0, deck), (length, width, deck), low=-1.0, high=0.0),
        box("deck", (-0.1, 0, deck), (length * 1.2, width * 1.1, 0.06), accent=True),
        rod("mast", (0, 0, deck), (0, 0, deck + mast), 0.028, accent=True),
        *main_sail,
        wedge("jib", (0.25, 0, deck + 0.1 + mast * 0.3), (0.42, 0.03, mast * 0.6)),
    ]
