# SPDX-License-Identifier: Apache-2.0
"""Classes found in a room: chair, table, bed, lamp, stepladder."""

from tools.scenes.parts import Part, ball, box, rod
from tools.scenes.vary import Vary


def chair(vary: Vary) -> list[Part]:
    seat, depth, back = vary(0.45), 0.24, vary(0.55)
    tilt = vary.between(0.0, 0.08)
    parts = [box("seat", (0, 0, seat), (0.5, 0.5, 0.07))]
    for x, end in ((depth - 0.03, "front"), (0.03 - depth, "back")):
        for y, side in ((0.21, "left"), (-0.21, "right")):
            parts.append(rod(f"{end} {side} leg", (x, y, 0), (x, y, seat), 0.035, accent=True))
    if vary.chance(0.5):
        parts.append(box("backrest", (-0.22 - tilt, 0, seat + back / 2), (0.06, 0.48, back)))
    else:
        parts.append(box("backrest", (-0.22 - tilt, 0, seat + back * 0.8), (0.06, 0.5, back * 0.4)))
        for y in (0.19, -0.19):
            parts.append(rod("post", (-0.22, y, seat), (-0.22 - tilt, y, seat + back * 0.7), 0.03))
    return parts


def table(vary: Vary) -> list[Part]:
    height, length, width = vary(0.55), vary(1.2), vary(0.7)
    parts = [box("top", (0, 0, height), (length, width, vary(0.07)))]
    for x in (length / 2 - 0.08, 0.08 - length / 2):
        for y in (width / 2 - 0.08, 0.08 - width / 2):
            parts.append(rod("leg", (x, y, 0), (x, y, height), 0.035, tip=0.05, accent=True))
    return parts


def bed(vary: Vary) -> list[Part]:
    length, width, height = vary(1.3), vary(0.75), vary(0.22)
    head, foot = vary(0.65), vary(0.33)
    return [
        box("frame", (0, 0, height - 0.04), (length, width, 0.1), accent=True),
        box("mattress", (0, 0, height + 0.07), (length, width * 0.95, 0.16)),
        box("headboard", (-length / 2, 0, head / 2), (0.07, width, head)),
        box("footboard", (length / 2, 0, foot / 2), (0.07, width, foot)),
        ball("pillow", (0.22 - length / 2, 0, height + 0.18), (0.16, width / 3, 0.09), accent=True),
    ]


def lamp(vary: Vary) -> list[Part]:
    height, shade, top = vary(0.85), vary(0.3), vary(0.15)
    foot = vary(0.22)
    return [
        rod("base", (0, 0, 0), (0, 0, 0.06), foot, tip=foot * 0.8, accent=True),
        rod("pole", (0, 0, 0.05), (0, 0, height), 0.03, accent=True),
        rod("shade", (0, 0, height - 0.16), (0, 0, height + 0.18), shade, tip=top),
    ]


def stepladder(vary: Vary) -> list[Part]:
    spread, half, steps = vary(0.3), vary(0.24), 4
    parts = []
    for y in (half, -half):
        parts.append(rod("front rail", (spread, y, 0), (0, y * 0.75, 1.1), 0.03))
        parts.append(rod("back rail", (-spread, y, 0), (0, y * 0.75, 1.1), 0.025, accent=True))
    for i in range(1, steps + 1):
        level = i / (steps + 1)
        width = 2 * half * (1 - 0.25 * level)
        parts.append(box("step", (spread * (1 - level), 0, 1.1 * level), (0.14, width, 0.035)))
    parts.append(box("platform", (0, 0, 1.1), (0.22, 1.6 * half, 0.05)))
    return parts
