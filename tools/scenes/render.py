# SPDX-License-Identifier: Apache-2.0
"""Renders a scene: picture, and what lies behind every pixel.

Rays pass through the centres, edges and corners of the pixels, a grid of 2 h + 1 by 2 w + 1. The
colour of a pixel is the tent-filtered mean of the nine rays that touch it; its labels are those of
the ray through its centre, exact and free.
"""

import dataclasses

import numpy as np

from tools.scenes.camera import Camera
from tools.scenes.layout import GROUND, Scene
from tools.scenes.materials import COLORS, pattern_weight
from tools.scenes.parts import Part
from tools.scenes.surroundings import ground_color, sky_color, wall_color
from tools.scenes.tracer import SKY, Solid, shadowed, trace
from tools.scenes.vectors import Array, dot, norm, transform

FAR = 60.0  # metres; farther ground melts into the sky


@dataclasses.dataclass(frozen=True)
class Rendering:
    """One picture with its labels.

    Attributes:
        image: [h, w, 3] uint8, RGB.
        depth: [h, w] float32 metres along the optical axis; inf for the sky.
        solid: [h, w] uint8, index into the scene's solids, or SKY.
        second_color: [h, w] float32, share of the pattern's second colour; NaN off main parts.
    """

    image: Array
    depth: Array
    solid: Array
    second_color: Array


def render(scene: Scene, camera: Camera) -> Rendering:
    """The picture that `camera` takes of `scene`."""
    columns = np.arange(2 * camera.width + 1, dtype=np.float32) / 2
    rows = np.arange(2 * camera.height + 1, dtype=np.float32) / 2
    hits = trace(scene.solids, camera, columns, rows, FAR)
    order = np.argsort(hits.solid.ravel(), kind="stable")  # samples of one solid side by side
    starts = np.searchsorted(hits.solid.ravel()[order], np.arange(SKY + 1))
    rays = _rays(camera, columns, rows)[:, order]
    shading = _Shading(scene, camera, rays[:, : starts[SKY]], hits.depth.ravel()[order])
    for index in np.flatnonzero(np.diff(starts)):
        shading.fill(slice(starts[index], starts[index + 1]), scene.solids[index])
    color, second = np.empty_like(rays), np.full(len(order), np.nan, np.float32)
    color[:, order[: starts[SKY]]] = shading.color()
    second[order[: starts[SKY]]] = shading.second
    far = rays[:, starts[SKY] :]
    color[:, order[starts[SKY] :]] = sky_color(scene.surroundings, far / norm(far))
    return Rendering(
        image=_develop(color, hits.depth.shape),
        depth=hits.depth[1::2, 1::2],
        solid=hits.solid[1::2, 1::2],
        second_color=second.reshape(hits.depth.shape)[1::2, 1::2],
    )


def _develop(color: Array, shape: tuple[int, ...]) -> Array:
    """Linear samples [3, n] on a grid of `shape` to the filtered, gamma-coded picture."""
    samples = np.clip(color, 0, 1, out=color).reshape(3, *shape)
    samples = samples[:, 1::2] / 2 + (samples[:, :-1:2] + samples[:, 2::2]) / 4
    samples = samples[:, :, 1::2] / 2 + (samples[:, :, :-1:2] + samples[:, :, 2::2]) / 4
    coded = np.sqrt(samples) * np.float32(255) + np.float32(0.5)
    return np.ascontiguousarray(coded.astype(np.uint8).transpose(1, 2, 0))


class _Shading:
    """The lit surface of all samples that meet one, sorted by solid."""

    def __init__(self, scene: Scene, camera: Camera, rays: Array, depth: Array):
        """`rays` [3, n] have depth 1 per unit; `depth` [>= n]."""
        self.scene = scene
        self.view = rays / norm(rays)
        self.depth = depth[: rays.shape[1]]
        self.points = rays * self.depth + camera.position[:, None].astype(np.float32)
        self.normals = np.empty_like(rays)
        self.albedo = np.empty_like(rays)
        self.gloss = np.zeros(rays.shape[1], np.float32)
        self.metal = np.zeros(rays.shape[1], np.float32)
        self.second = np.full(rays.shape[1], np.nan, np.float32)

    def fill(self, at: slice, solid: Solid) -> None:
        """Enters the samples `at`, whose rays met `solid`."""
        points = self.points[:, at]
        local = solid.localise(points)
        self.normals[:, at] = solid.normals(local)
        if solid.owner == GROUND:
            self.albedo[:, at] = ground_color(self.scene.surroundings, points, self.depth[at])
        elif solid.part is None:
            self.albedo[:, at] = wall_color(self.scene.surroundings, local, self.depth[at])
        else:
            self._paint(at, local, solid.owner, solid.part)

    def _paint(self, at: slice, local: Array, owner: int, part: Part) -> None:
        material = self.scene.things[owner].material
        self.gloss[at] = material.finish != "matte"
        if part.accent:
            self.albedo[:, at] = np.array(material.accent, np.float32)[:, None]
            return
        weight = pattern_weight(material, transform(part.frame.astype(np.float32), local))
        own = np.array(COLORS[material.color], np.float32)[:, None]
        second = np.array(material.second, np.float32)[:, None]
        self.albedo[:, at] = own + (second - own) * weight
        self.metal[at] = material.finish == "metallic"
        self.second[at] = weight

    def color(self) -> Array:
        """Linear RGB [3, n]."""
        lights = self.scene.lights
        # Shells have two sides.
        normals = self.normals * np.copysign(np.float32(1), -dot(self.normals, self.view))
        sun = transform(lights.sun[None], normals)[0]
        start = self.points + normals * np.float32(2e-3)
        sunlit = np.maximum(sun, 0)
        sunlit[shadowed(self.scene.solids, start, lights.sun, sun > 0)] = 0
        fill = np.maximum(transform(lights.fill[None], normals)[0], 0)
        above = np.float32(0.75) + np.float32(0.25) * normals[2]
        color = np.empty_like(normals)
        for c in range(3):
            light = lights.sun_color[c] * sunlit + lights.fill_color[c] * fill
            color[c] = self.albedo[c] * (light + lights.ambient[c] * above)
        glossy = np.flatnonzero(self.gloss)
        color[:, glossy] += self._gloss(glossy, normals[:, glossy], sunlit[glossy] > 0)
        return color

    def _gloss(self, at: Array, normals: Array, sunlit: Array) -> Array:
        """What the samples `at` mirror: the sun, the sky and the ground, [3, n]."""
        lights, view = self.scene.lights, self.view[:, at]
        cosine = dot(normals, view)
        mirrored = view - 2 * cosine * normals
        sharpness = np.maximum(transform(lights.sun[None], mirrored)[0], 0) ** 40 * sunlit
        world = np.where(mirrored[2] > 0, sky_color(self.scene.surroundings, mirrored), 0.12)
        share = 0.04 + 0.4 * (1 + cosine) ** 4
        share += (0.55 - share) * self.metal[at]
        highlight = (0.35 + 0.5 * self.metal[at]) * sharpness * lights.sun_color[:, None]
        tint = 1 + (self.albedo[:, at] - 1) * self.metal[at]
        return (tint * (share * world + highlight)).astype(np.float32)


def _rays(camera: Camera, columns: Array, rows: Array) -> Array:
    """World rays [3, h * w] of depth 1 through a grid of image points."""
    matrix = camera.ray_matrix
    grid = (
        matrix[:, 0, None, None] * columns
        + (matrix[:, 1, None] * rows + matrix[:, 2, None])[:, :, None]
    )
    return grid.reshape(3, -1)
