# SPDX-License-Identifier: Apache-2.0
"""Two views of made scenes: points, poses and projection agree with each other and the pictures."""

import dataclasses

import numpy as np
import pytest

from input_pipeline.eval_pairs import ViewPair
from input_pipeline.scene_views import SceneViews
from input_pipeline.store import finish_sidecar, finish_store, write_shard
from mtv_jax.core.errors import UserError
from tests.input_pipeline.scene_store import SCENES, scene_store
from tools.scenes.camera import look_at
from tools.scenes.labels import FIELDS
from tools.scenes.sample import make_sample


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> SceneViews:
    return SceneViews(store=str(scene_store(tmp_path_factory.mktemp("scenes"))))


def first_wide(data) -> int:
    """The row of a first view that is not square."""
    shapes = [data.image(row).shape for row in range(0, len(data), 2)]
    return 2 * next(i for i, shape in enumerate(shapes) if shape[1] > shape[0])


def test_a_pair_is_the_two_views_of_a_scene(data):
    data.open()
    assert len(data) == 2 * SCENES and len(data.pairs()) == SCENES
    sample = make_sample(0, "test", 3, 64)
    cameras = sample.scene.camera, sample.scene.second_camera
    for row, camera in zip((6, 7), cameras, strict=True):
        np.testing.assert_allclose(data.pose(row), camera.pose, atol=1e-5)
    pair = data.pairs()[3]
    turn = cameras[1].rotation @ cameras[0].rotation.T
    degrees = np.degrees(np.arccos((np.trace(turn) - 1) / 2))
    assert pair == ViewPair(6, 7, pytest.approx(degrees, abs=1e-3))
    assert not np.array_equal(data.image(6), data.image(7))


def test_points_project_to_where_they_were_seen(data):
    """In the squashed square, by the focal lengths along each axis."""
    row, side = first_wide(data), 32
    for view in (row, row + 1):
        points = data.points(view, side).astype(np.float64)
        known = points[..., 2] > 0
        fx, fy = data.focal(view, side)
        assert fx < 0.9 * fy, "a wide view is squashed along x"
        shown = points[..., :2] * [fx, fy] / np.maximum(points[..., 2:], 1e-9) + side / 2
        cells = np.stack(np.meshgrid(*[np.arange(side) + 0.5] * 2), axis=-1)
        # The pixel in the middle of a cell: half a stored pixel beside it at most.
        np.testing.assert_allclose(shown[known], cells[known], atol=0.26)
        assert known.any()
    first, second = (data.points(r, side)[..., 2] > 0 for r in (row, row + 1))
    assert first.mean() < second.mean(), "objects there, all that is known here"
    np.testing.assert_allclose(data.focal(row, 64), 2 * data.focal(row, 32))


def test_a_point_is_the_same_in_both_views(data):
    """Moved to the other camera's frame it lies on what that camera sees, unless that is hidden."""
    side, shares = 64, []
    for first, second, _ in data.pairs()[:10]:
        points = data.points(first, side).reshape(-1, 3).astype(np.float64)
        motion = data.pose(second) @ np.linalg.inv(data.pose(first))
        moved = points[points[:, 2] > 0] @ motion[:3, :3].T + motion[:3, 3]
        there = data.points(second, side).reshape(-1, 3)
        nearest = np.linalg.norm(moved[:, None] - there[None], axis=-1).min(axis=1)
        shares.append((nearest < 0.05).mean())
    assert np.mean(shares) > 0.7
    wrong = points[points[:, 2] > 0] - there.mean(axis=0)
    assert np.linalg.norm(wrong[:, None] - there[None], axis=-1).min(axis=1).mean() > 0.05


def test_parts_are_runs_of_scenes(data, monkeypatch):
    monkeypatch.setattr("input_pipeline.scene_views._TOGETHER", 16)
    parts = data.parts()
    assert [len(part) for part in parts] == [32, 32, 18]
    np.testing.assert_array_equal(parts[2].image(1), data.image(65))
    np.testing.assert_array_equal(parts[1].pose(3), data.pose(35))
    degrees = [pair.degrees for part in parts for pair in part.pairs()]
    assert degrees == [pair.degrees for pair in data.pairs()]
    few = dataclasses.replace(data, start=3, stop=10)
    assert few.parts() == [few]
    limited = dataclasses.replace(data, limit=20)
    assert [len(part) for part in limited.parts()] == [32, 8]


def broken(tmp_path, *, leave_out=(), **changed) -> SceneViews:
    """A store of one row of made-up labels."""
    eye = look_at(np.asarray([0.0, -1.0, 0.0]), np.zeros(3))
    pose = np.eye(4)
    pose[:3, :3] = eye
    row = {"key": "0", "pose": pose.ravel(), "view2_pose": pose.ravel(), **changed}
    write_shard(tmp_path, "images", 0, [{"key": "0"}])
    finish_store(tmp_path, "broken", FIELDS["images"], {})
    write_shard(tmp_path, "scene_v1", 0, [row])
    fields = [field for field in FIELDS["scene_v1"] if field.name not in leave_out]
    finish_sidecar(tmp_path, "scene_v1", fields, {})
    return SceneViews(store=str(tmp_path))


def test_labels_that_are_not_there_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no column 'view2_image'.*; make scenes, .*make_scenes"):
        broken(tmp_path / "a", leave_out=["view2_image"]).open()
    with pytest.raises(UserError, match=r"1 scenes of .* have no 'intrinsics' of 4; make scenes"):
        broken(tmp_path / "b").open()
    with pytest.raises(UserError, match=r"1 scenes of .* have no 'pose' of 16"):
        broken(tmp_path / "c", pose=np.zeros(12), intrinsics=np.ones(4)).open()


def test_a_view_that_cannot_be_read_is_black_and_shows_nothing(tmp_path, caplog):
    lost = broken(tmp_path, intrinsics=np.ones(4), view2_image=b"no picture")
    assert not lost.image(1).any() and "unreadable: second view 0" in caplog.text
    assert not lost.image(0).any()
    assert not lost.points(0, 4).any() and not lost.points(1, 4).any()
