# SPDX-License-Identifier: Apache-2.0
"""Geometric correspondence with features that the test chooses, on a miniature of NAVI."""

import json
import types

import jax
import numpy as np
import pytest
from mtv_jax.evaluators.navi import NaviRecall, matched, projected, resized

from input_pipeline.layouts import navi as layout
from input_pipeline.layouts.navi import Navi
from mtv_jax.core.errors import UserError
from mtv_jax.dist.mesh import MeshConfig, make_mesh
from tests.input_pipeline.layouts import trees

SIDE = 32  # patches
MESH = make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture
def data(tmp_path):
    trees.navi(tmp_path)
    return Navi(root=str(tmp_path))


def test_views_are_squares_around_the_object(data):
    data.open()
    assert data.things() == ["plate"] and len(data) == 5
    assert [int(data.image(row)[256, 256, 0]) for row in range(5)] == pytest.approx(
        [0, 50, 100, 150, 200], abs=2
    )
    points = data.points(0, 128)
    assert points.shape == (128, 128, 3) and points.dtype == np.float32
    known = points[..., 2] > 0
    assert not known[0, 0] and known[64, 64] and known[0, 60], "the disc touches the sides"
    # A plane at 65,535 · 10 / 655 mm; its rim at 20 / 64 of the distance.
    np.testing.assert_allclose(points[known][:, 2], 1.00053, atol=1e-4)
    assert np.abs(points[..., :2]).max() == pytest.approx(20 / 64, rel=0.03)
    # 512 pixels are the disc's 40 of 64: a focal length of 64 / 40 · 512.
    assert data.focal(0) == pytest.approx(64 / 40 * 512, rel=0.03)


def test_poses_and_angles(data):
    pose = data.pose(3)
    np.testing.assert_allclose(pose[:3, 3], [0, 0, 1])
    turn = np.radians(70)
    np.testing.assert_allclose(pose[0, :3], [np.cos(turn), -np.sin(turn), 0], atol=1e-12)
    rotations = np.stack([data.pose(row)[:3, :3] for row in range(5)])
    angles = layout.relative_degrees(rotations)
    np.testing.assert_allclose(angles[0], trees.NAVI_DEGREES, atol=1e-4)


def test_every_fourth_image_has_a_partner_up_to_120_degrees_away(data):
    pairs = data.pairs()
    assert [pair.first for pair in pairs] == [0, 4] and pairs == data.pairs()
    assert 0 < pairs[0].second < 4, "the last is 130 degrees away"
    assert pairs[0].degrees == pytest.approx(trees.NAVI_DEGREES[pairs[0].second], abs=1e-4)
    assert Navi(root=data.root, thing="plate").pairs() == pairs


def test_an_image_without_a_near_partner_is_in_no_pair(data, tmp_path):
    path = tmp_path / "plate" / "wild_set" / "annotations.json"
    far = [e for e in json.loads(path.read_text()) if e["filename"] in ("000.jpg", "004.jpg")]
    path.write_text(json.dumps(far))
    lonely = Navi(root=data.root, limit=2)
    assert lonely.pairs() == []
    numbers = NaviRecall(name="n", data=lonely).run(Context())
    assert numbers["pairs"] == 0 and np.isnan(numbers["recall"])


def test_squares_by_hand():
    mask = np.zeros((10, 12), bool)
    mask[3:6, 5:10] = True  # 2 high, 4 wide between first and last
    assert layout.object_square(mask) == (slice(2, 6), slice(5, 9))
    mask[:] = False
    mask[0, 3:8] = True  # no room above: it moves down
    assert layout.object_square(mask) == (slice(0, 4), slice(3, 7))
    assert layout.object_square(np.zeros((3, 3), bool)) == (slice(None), slice(None))


def test_depth_is_stored_as_disparity():
    np.testing.assert_allclose(
        layout.metres(np.asarray([0, 65_535, 655])), [0, 0.01, 1.00053], 1e-5
    )


class Context:
    """Patch features that tell the place on the object, or nothing."""

    mesh = MESH

    def __init__(self, *, blind: bool = False):
        self.blind = blind

    def batches(self, data, wants, *, size, batch_size):
        assert wants.last_raw and wants.tokens and size == 512
        waves = np.random.default_rng(0).normal(0, 12, (3, 64))
        for row in range(len(data)):
            points = data.points(row, SIDE).reshape(-1, 3).astype(np.float64)
            pose = data.pose(row)
            places = (points - pose[:3, 3]) @ pose[:3, :3]
            seen = np.cos(places @ waves + np.arange(64))
            noise = np.random.default_rng(row + 1).normal(size=seen.shape)
            told = noise if self.blind else seen
            yield types.SimpleNamespace(last_raw=told[None], tokens=noise[None])


def test_features_that_know_the_place_are_matched(data):
    numbers = NaviRecall(name="n", data=data, side=64, matches=200).run(Context())
    assert numbers["pairs"] == 2
    assert numbers["recall"] > 0.9 and numbers["5cm"] > 0.95
    assert numbers["normed_recall"] < 0.2, "those are noise"
    blind = NaviRecall(name="n", data=data, side=64, matches=200).run(Context(blind=True))
    assert blind["recall"] < 0.2
    assert 0 < numbers["5px"] <= numbers["25px"] <= numbers["50px"] <= 1.0


def test_another_pose_is_another_answer(data, tmp_path):
    """What is compared is the poses' motion, not the features alone."""
    path = tmp_path / "plate" / "wild_set" / "annotations.json"
    evaluator = NaviRecall(name="n", data=data, side=64, matches=200)
    tokens = [f.last_raw[0] for f in Context().batches(data, types.SimpleNamespace(
        last_raw=True, tokens=True), size=512, batch_size=1)]  # fmt: skip
    right = evaluator.errors(MESH, data, tokens, 0, 2)
    entries = json.loads(path.read_text())
    next(e for e in entries if e["filename"] == "002.jpg")["camera"]["q"] = [1.0, 0.0, 0.0, 0.0]
    path.write_text(json.dumps(entries))
    wrong = evaluator.errors(MESH, Navi(root=data.root, limit=5), tokens, 0, 2)
    assert np.median(right[:, 0]) < 0.02 < np.median(wrong[:, 0])
    assert right.shape == wrong.shape == (200, 2)


def test_matches_are_ordered_by_their_ratio():
    first = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]])
    second = np.asarray([[1.0, 0.05], [0.05, 1.0], [-1.0, 0.0]])
    matches = matched(MESH, first, second, 2)
    assert sorted(matches.first.tolist()) == [0, 1]  # the third is as near to both
    assert matches.second.tolist() == matches.first.tolist()
    assert len(matched(MESH, first[:0], second, 2).first) == 0


def test_bicubic_resizing_keeps_constants_and_a_grid_of_its_size():
    """What lies between is compared with PyTorch's in tests/golden."""
    np.testing.assert_allclose(resized(np.ones((5, 5, 2)), 20), 1.0, rtol=1e-6)
    grid = np.random.default_rng(0).normal(size=(6, 6, 3))
    np.testing.assert_allclose(resized(grid, 6), grid, atol=1e-6)


def test_projection():
    np.testing.assert_allclose(projected(np.asarray([[1.0, 2.0, 4.0]]), 100.0), [[25, 50]])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("plate/wild_set/annotations.json", r"annotations.json cannot be read"),
        ("plate", "it holds no images"),
        ("plate/wild_set/images/003.jpg", "1 of its files are missing"),
        ("plate/wild_set/depth", "5 of its files are missing"),
    ],
)
def test_damage_is_one_line(data, tmp_path, path, message):
    (tmp_path / path).rename(tmp_path.with_name(f"{tmp_path.name}_gone"))
    with pytest.raises(UserError, match=rf"{message}.*; get it from http"):
        data.open()


def test_an_image_that_cannot_be_read_is_black(data, tmp_path, caplog):
    (tmp_path / "plate/wild_set/depth/001.png").write_bytes(b"")
    assert not data.image(1).any() and "unreadable: image 1" in caplog.text
    assert not data.points(1, 128).any()
    (tmp_path / "plate/wild_set/annotations.json").write_text("[{}]")
    with pytest.raises(UserError, match="is not NAVI's"):
        Navi(root=data.root, limit=1).open()
