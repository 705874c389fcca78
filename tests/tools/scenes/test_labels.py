# SPDX-License-Identifier: Apache-2.0
"""The stored labels agree with each other and with the pictures."""

import numpy as np

from tests.tools.scenes.conftest import SETTINGS
from tools.scenes.classes.catalog import CLASSES
from tools.scenes.labels import to_disparity, to_millimetres
from tools.scenes.sample import make_sample

_NAMES = [kind.name for kind in CLASSES]


def _class_of(phrase: str) -> int:
    return next(i for i, name in enumerate(_NAMES) if phrase == name or phrase.endswith(f" {name}"))


def _unprojected(scene, depth, pose):
    """World points [n, 3] of all pixels with a depth, and their (row, column) [n, 2]."""
    rows, columns = np.nonzero(depth)
    fx, fy, cx, cy = scene.intrinsics
    z = depth[rows, columns] / 1000
    camera = np.stack([(columns + 0.5 - cx) / fx * z, (rows + 0.5 - cy) / fy * z, z, z**0])
    return (np.linalg.inv(pose) @ camera)[:3].T, np.stack([rows, columns], axis=1)


def _projected(scene, points, pose):
    """(column, row, depth) [n, 3] in pixels of world points [n, 3]."""
    fx, fy, cx, cy = scene.intrinsics
    x, y, z = (pose @ np.column_stack([points, np.ones(len(points))]).T)[:3]
    return np.stack([fx * x / z + cx, fy * y / z + cy, z], axis=1)


def test_boxes_are_tight_around_the_segmentation(test_scenes):
    for scene in test_scenes:
        height, width = scene.size
        for box, phrase in zip(scene.boxes, scene.phrases, strict=True):
            rows, columns = np.nonzero(scene.segmentation == _class_of(phrase) + 1)
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.allclose(box * [width, height, width, height], expected, atol=1e-3)


def test_main_object_is_the_biggest(test_scenes):
    for scene in test_scenes:
        areas = np.prod(scene.boxes[:, 2:] - scene.boxes[:, :2], axis=1)
        assert _class_of(scene.phrases[0]) == scene.class_id
        assert areas[0] > 1.15 * max(areas[1:], default=0)


def test_some_things_are_occluded_or_stand_alone(test_scenes):
    counts = [len(scene.boxes) for scene in test_scenes]
    assert {1, 2, 3} <= set(counts) <= {1, 2, 3, 4}
    overlaps = 0
    for scene in test_scenes:
        for other in scene.boxes[1:]:
            width, height = (
                np.minimum(scene.boxes[0], other)[2:] - np.maximum(scene.boxes[0], other)[:2]
            )
            overlaps += width > 0 and height > 0
    assert overlaps >= 5


def test_disparity_is_inverse_depth_up_to_scale(test_scenes):
    for scene in test_scenes:
        sky = scene.metric_depth == 0
        assert (scene.depth[sky] == 0).all()
        assert scene.depth.max() == 65535 and scene.depth.min() == 0
        inverse = 1000 / scene.metric_depth[~sky]
        slope, offset = np.polyfit(inverse, scene.depth[~sky], 1)
        assert slope > 0
        assert (
            abs(slope * inverse + offset - scene.depth[~sky]).max() < 65535 * 5e-3
        )  # millimetres, rounded


def test_depth_codes_round_trip():
    depth = np.array([[1.0, 2.0], [4.0, np.inf]], np.float32)
    assert to_millimetres(depth).tolist() == [[1000, 2000], [4000, 0]]
    assert to_disparity(depth).tolist() == [[65535, 32768], [16384, 0]]


def test_second_view_is_turned_by_5_to_40_degrees(test_scenes):
    for scene in test_scenes:
        cosine = scene.pose[2, :3] @ scene.view2_pose[2, :3]
        assert 4.9 < np.rad2deg(np.arccos(cosine)) < 40.1


def test_first_view_lands_on_the_same_surfaces_in_the_second(test_scenes):
    """Depth, poses and both pictures at once: nothing lies behind what the second view sees."""
    see_through, agreeing, gaps, chance = [], [], [], []
    for scene in test_scenes:
        points, pixels = _unprojected(scene, scene.metric_depth, scene.pose)
        column, row, depth = _projected(scene, points, scene.view2_pose).T
        height, width = scene.size
        inside = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        at = row[inside].astype(int), column[inside].astype(int)
        seen = scene.view2_metric_depth[at] / 1000
        depth, pixels = depth[inside], pixels[inside]
        near = depth < 8  # farther, one pixel of the ground spans much depth
        tolerance = 0.04 * depth
        see_through.append(((seen - depth > tolerance) & near).mean())
        same = (abs(seen - depth) < tolerance) & near
        agreeing.append(same.sum() / near.sum())
        first = scene.image[pixels[:, 0], pixels[:, 1]].astype(int)[same]
        second = scene.view2_image[at].astype(int)[same]
        gaps.append(abs(first - second).mean())
        chance.append(abs(first - np.random.default_rng(0).permutation(second)).mean())
    assert np.mean(see_through) < 0.02
    assert np.mean(agreeing) > 0.75
    assert np.mean(gaps) < 0.45 * np.mean(chance)


def test_keypoints_are_where_the_parts_are(test_scenes):
    visible = 0
    for scene in test_scenes:
        sample = make_sample(SETTINGS.seed, "test", scene.index, SETTINGS.size)
        anchors = {}
        for solid in (s for s in sample.scene.solids if s.owner >= 0):
            thing = sample.scene.things[solid.owner]
            anchors[f"{thing.identity.object_class.name}/{solid.part.name}"] = solid.anchor
        assert len(set(scene.keypoint_names)) == len(scene.keypoint_names)
        expected = _projected(
            scene, np.array([anchors[n] for n in scene.keypoint_names]), scene.pose
        )
        pixels = scene.keypoints * scene.size[::-1]
        assert np.allclose(pixels, expected[:, :2], atol=0.02)
        for name, (column, row), seen in zip(
            scene.keypoint_names, pixels.astype(int), scene.keypoint_visible, strict=True
        ):
            label = scene.segmentation[row, column]
            if seen:
                visible += 1
                assert label == _NAMES.index(name.split("/")[0]) + 1
    assert visible > 3 * len(test_scenes)


def test_main_object_fills_its_share(test_scenes):
    for scene in test_scenes:
        left, top, right, bottom = scene.boxes[0]
        assert (right - left) * (bottom - top) > 0.1
