# SPDX-License-Identifier: Apache-2.0
"""Classes held in the hand: tableware, tools, an umbrella, a guitar."""

from tools.scenes.parts import Part, ball, box, dome, ring, rod, shifted, turned
from tools.scenes.vary import Vary


def mug(vary: Vary) -> list[Part]:
    radius, height = vary(0.33), vary(0.72)
    return [
        rod(
            "body", (0, 0, 0), (0, 0, height), radius * vary(0.95, 0.05), tip=radius, open_end=True
        ),
        rod("filling", (0, 0, 0.05), (0, 0, height * 0.8), radius * 0.9, accent=True),
        ring(
            "handle",
            (radius * 0.95, 0, height * 0.52),
            height * 0.28,
            0.055,
            axis=(0, 1, 0),
            toward=(1, 0, 0),
            arc=180,
        ),
    ]


def bottle(vary: Vary) -> list[Part]:
    radius, body, neck = vary(0.2), vary(0.6), vary(0.25)
    thin = radius * vary(0.36)
    return [
        rod("body", (0, 0, 0), (0, 0, body), radius),
        dome("shoulder", (0, 0, body), (radius, radius, radius * 0.9)),
        rod("neck", (0, 0, body), (0, 0, body + radius * 0.7 + neck), thin),
        rod(
            "cap",
            (0, 0, body + radius * 0.7 + neck * 0.9),
            (0, 0, body + radius * 0.7 + neck * 1.25),
            thin * 1.3,
            accent=True,
        ),
    ]


def goblet(vary: Vary) -> list[Part]:
    stem, bowl, foot = vary(0.4), vary(0.3), vary(0.24)
    depth = vary(0.42)
    return [
        rod("foot", (0, 0, 0), (0, 0, 0.06), foot, tip=foot * 0.5),
        rod("stem", (0, 0, 0.04), (0, 0, stem + 0.06), 0.045),
        ball("knot", (0, 0, stem * 0.55), 0.085, accent=True),
        dome("bowl", (0, 0, stem + depth), (bowl, bowl, depth), low=-1.0, high=0.0, hollow=True),
        rod(
            "rim",
            (0, 0, stem + depth),
            (0, 0, stem + depth * 1.35),
            bowl,
            tip=bowl * 0.95,
            open_end=True,
        ),
    ]


def teapot(vary: Vary) -> list[Part]:
    radius, height = vary(0.4), vary(0.33)
    middle = height * 0.95
    return [
        dome("body", (0, 0, middle), (radius, radius, height), low=-0.9, high=1.0),
        ball(
            "lid", (0, 0, middle + height * 0.82), (radius * 0.55, radius * 0.55, 0.1), accent=True
        ),
        ball("knob", (0, 0, middle + height * 1.25), 0.065, accent=True),
        rod(
            "spout",
            (radius * 0.75, 0, middle - 0.1),
            (radius + 0.32, 0, middle + 0.25),
            0.12,
            tip=0.05,
        ),
        ring(
            "handle",
            (-radius * 0.92, 0, middle + 0.02),
            0.2,
            0.045,
            axis=(0, 1, 0),
            toward=(-1, 0, 0),
            arc=210,
        ),
    ]


def umbrella(vary: Vary) -> list[Part]:
    radius, length, rise = vary(0.55), vary(0.95), vary(0.32)
    canopy = [
        dome("canopy", (0, 0, length), (radius, radius, rise), hollow=True),
        rod(
            "tip",
            (0, 0, length + rise - 0.02),
            (0, 0, length + rise + 0.12),
            0.03,
            tip=0.01,
            accent=True,
        ),
        rod("pole", (0, 0, 0.12), (0, 0, length + rise), 0.025, accent=True),
        ring(
            "hook",
            (0.1, 0, 0.12),
            0.1,
            0.03,
            axis=(0, 1, 0),
            toward=(0, 0, -1),
            arc=180,
            accent=True,
        ),
    ]
    return turned(canopy, "x", vary.between(-18, 18), (0, 0, 0.05))


def hammer(vary: Vary) -> list[Part]:
    length, head = vary(0.95), vary(0.2)
    axis = 0.11
    return [
        rod("handle", (-length, 0, axis), (0.06, 0, axis), 0.055, tip=0.05),
        box("head", (0, 0, axis), (0.16, 0.24, 0.17)),
        rod("face", (0, 0.1, axis), (0, 0.12 + head, axis), 0.085, tip=0.1, accent=True),
        rod(
            "claw", (0, -0.1, axis), (-0.1, -0.14 - head, axis * 0.6), 0.075, tip=0.02, accent=True
        ),
    ]


def dumbbell(vary: Vary) -> list[Part]:
    half, radius, disc = vary(0.42), vary(0.3), vary(0.1)
    parts = [rod("bar", (0, -half - 0.2, radius), (0, half + 0.2, radius), 0.045, accent=True)]
    for side in (1, -1):
        for near, far, size in ((half, half + disc, radius), (half - disc, half, radius * 0.72)):
            parts.append(rod("disc", (0, side * near, radius), (0, side * far, radius), size))
    return parts


def guitar(vary: Vary) -> list[Part]:
    neck, body = vary(0.62), vary(0.27)
    waist = 0.06 + body
    flat = [
        rod("lower bout", (0, 0, 0), (0, 0, 0.16), body * 1.25),
        rod("upper bout", (body * 1.4, 0, 0), (body * 1.4, 0, 0.16), body * 0.92),
        rod("sound hole", (waist * 1.1, 0, 0.1), (waist * 1.1, 0, 0.166), body * 0.36, accent=True),
        box("bridge", (-body * 0.35, 0, 0.17), (0.06, body, 0.04), accent=True),
        box("neck", (body * 2 + neck / 2, 0, 0.15), (neck + 0.2, 0.09, 0.06), accent=True),
        box("head", (body * 2 + neck + 0.16, 0, 0.15), (0.2, 0.16, 0.06)),
    ]
    upright = turned(flat, "y", -vary.between(68, 80))
    return shifted(upright, (0, 0, body * 1.25))
