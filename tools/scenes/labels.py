# SPDX-License-Identifier: Apache-2.0
"""From a rendered sample to records of a store: the columns and what they hold.

Labels come from the geometry, none from the picture. Those of a pixel are what the ray through its
centre meets.
"""

from collections.abc import Mapping

import numpy as np
import simplejpeg

from input_pipeline.decode import encode_png16
from input_pipeline.example import Value
from input_pipeline.store import BASE
from mtv_jax.core.fields import BOXES, CAPTION, DEPTH, IMAGE, PHRASES, SCORES, Field
from tools.scenes.camera import Camera
from tools.scenes.render import Rendering, render
from tools.scenes.sample import Sample
from tools.scenes.sentences import caption, phrase
from tools.scenes.vectors import Array
from tools.scenes.visibility import owner_map

REGIONS, DEPTHS, SCENES = "regions_v1", "depth_v1", "scene_v1"
_MILLIMETRES = "millimetres along the optical axis, 0 = sky"
_POSE = "world to camera, row-major 4 x 4, metres; camera x right, y down, z forward"
_MAX_KEYPOINTS = 64

FIELDS: Mapping[str, tuple[Field, ...]] = {
    BASE: (
        IMAGE,
        CAPTION,
        Field(name="height", dtype="int32"),
        Field(name="width", dtype="int32"),
        Field(name="class_id", dtype="int32"),
        Field(name="class_name", dtype="str"),
    ),
    REGIONS: (BOXES, PHRASES, SCORES),
    DEPTHS: (DEPTH,),
    SCENES: (
        Field(
            name="segmentation",
            shape="h w",
            dtype="uint16",
            geometry="raster",
            resample="nearest",
            codec="png16",
            unit="0 = background, class_id + 1 = object",
        ),
        Field(
            name="metric_depth",
            shape="h w",
            dtype="uint16",
            geometry="raster",
            resample="nearest",
            codec="png16",
            unit=_MILLIMETRES,
        ),
        Field(name="pose", shape="16", unit=_POSE),
        Field(name="intrinsics", shape="4", unit="fx, fy, cx, cy in pixels, of both views"),
        Field(name="view2_image", shape="h w 3", dtype="uint8", codec="image"),
        Field(
            name="view2_metric_depth",
            shape="h w",
            dtype="uint16",
            resample="nearest",
            codec="png16",
            unit=_MILLIMETRES,
        ),
        Field(name="view2_pose", shape="16", unit=_POSE),
        Field(
            name="keypoints",
            shape="p 2",
            geometry="points",
            pad_to=_MAX_KEYPOINTS,
            unit="xy in [0, 1]",
        ),
        Field(name="keypoint_names", shape="p", dtype="str", pad_to=_MAX_KEYPOINTS),
        Field(
            name="keypoint_visible",
            shape="p",
            dtype="int32",
            pad_to=_MAX_KEYPOINTS,
            unit="1 = nothing else is in front of that part",
        ),
    ),
}
# The test split is for evaluation: it has everything.
HOLDERS = {"train": (BASE, REGIONS, DEPTHS), "test": (BASE, REGIONS, DEPTHS, SCENES)}
# See `caption`. Most training captions name little but the class; test captions tell all, so that
# each fits one picture of a gallery.
_DETAILS = {"train": (0.0, 0.0, 0.0, 0.5, 0.9), "test": (1.0,)}

Row = dict[str, Value]


def make_rows(sample: Sample) -> dict[str, Row]:
    """The records of one sample by holder: the base and the sidecars of its split."""
    makers = {BASE: _base_row, REGIONS: _regions_row, DEPTHS: _depth_row, SCENES: _scene_row}
    return {
        holder: {"key": sample.key, **makers[holder](sample)} for holder in HOLDERS[sample.split]
    }


def _base_row(sample: Sample) -> Row:
    main = sample.scene.things[0].identity
    height, width = sample.rendering.depth.shape
    return {
        "image": encode_jpeg(sample.rendering.image),
        "caption": caption(
            sample.words,
            sample.seen,
            sample.scene.surroundings,
            sample.words.pick(_DETAILS[sample.split]),
        ),
        "height": height,
        "width": width,
        "class_id": main.class_id,
        "class_name": main.object_class.name,
    }


def _regions_row(sample: Sample) -> Row:
    return {
        "boxes": np.concatenate([sighting.box for sighting in sample.seen]),
        "phrases": [phrase(sample.words, sighting) for sighting in sample.seen],
        "scores": np.ones(len(sample.seen)),
    }


def _depth_row(sample: Sample) -> Row:
    return {"depth": encode_png16(to_disparity(sample.rendering.depth))}


def _scene_row(sample: Sample) -> Row:
    scene, rendering = sample.scene, sample.rendering
    second = render(scene, scene.second_camera)
    labels = np.array([0] + [thing.identity.class_id + 1 for thing in scene.things], np.uint16)
    return {
        "segmentation": encode_png16(labels[np.maximum(owner_map(scene, rendering), -1) + 1]),
        "metric_depth": encode_png16(to_millimetres(rendering.depth)),
        "pose": scene.camera.pose,
        "intrinsics": scene.camera.intrinsics,
        "view2_image": encode_jpeg(second.image),
        "view2_metric_depth": encode_png16(to_millimetres(second.depth)),
        "view2_pose": scene.second_camera.pose,
        **_keypoints(sample, scene.camera, rendering),
    }


def _keypoints(sample: Sample, camera: Camera, rendering: Rendering) -> Row:
    """The parts that have their name to themselves, where they fall into the frame."""
    names, points, visible = [], [], []
    for sighting in sample.seen:
        part_names = [part.name for part in sighting.thing.parts]
        for index, solid in enumerate(sample.scene.solids):
            owned = solid.owner >= 0 and sample.scene.things[solid.owner] is sighting.thing
            if not owned or part_names.count(solid.part.name) > 1:
                continue
            column, row, depth = camera.project(solid.anchor[:, None])[:, 0]
            if depth > 0 and 0 <= column < camera.width and 0 <= row < camera.height:
                names.append(f"{sighting.thing.identity.object_class.name}/{solid.part.name}")
                points += [column / camera.width, row / camera.height]
                visible.append(int(rendering.solid[int(row), int(column)] == index))
    return {
        "keypoints": np.array(points, np.float32),
        "keypoint_names": names,
        "keypoint_visible": np.array(visible, np.int32),
    }


def to_disparity(depth: Array) -> Array:
    """uint16 [h, w]: 1 / depth, min-max scaled over the picture; the sky is infinitely far."""
    disparity = 1 / depth
    low, high = disparity.min(), disparity.max()
    return np.round((disparity - low) / max(high - low, 1e-6) * 65535).astype(np.uint16)


def to_millimetres(depth: Array) -> Array:
    """uint16 [h, w]: depth in millimetres; 0 for the sky."""
    return np.where(np.isfinite(depth), np.round(depth * 1000), 0).astype(np.uint16)


def encode_jpeg(image: Array) -> bytes:
    """JPEG of a uint8 [h, w, 3] picture, good enough to be measured on."""
    return simplejpeg.encode_jpeg(image, quality=95, colorsubsampling="444")
