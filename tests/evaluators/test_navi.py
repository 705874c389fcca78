# SPDX-License-Identifier: Apache-2.0
"""Geometric correspondence with features that the test chooses, on a miniature of NAVI."""

import json
import types

import jax
import numpy as np
import pytest

from input_pipeline.eval_pairs import ViewPair, relative_degrees
from input_pipeline.layouts import navi as layout
from input_pipeline.layouts.navi import Navi
from mtv_jax.core.errors import UserError
from mtv_jax.dist.mesh import MeshConfig, make_mesh
from mtv_jax.evaluators.two_view import TwoViewRecall
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
    np.testing.assert_allclose(data.focal(0, 512), [64 / 40 * 512] * 2, rtol=0.03)
    np.testing.assert_allclose(data.focal(0, 256), data.focal(0, 512) / 2)


def test_poses_and_angles(data):
    pose = data.pose(3)
    np.testing.assert_allclose(pose[:3, 3], [0, 0, 1])
    turn = np.radians(70)
    np.testing.assert_allclose(pose[0, :3], [np.cos(turn), -np.sin(turn), 0], atol=1e-12)
    rotations = np.stack([data.pose(row)[:3, :3] for row in range(5)])
    angles = relative_degrees(rotations)
    np.testing.assert_allclose(angles[0], trees.NAVI_DEGREES, atol=1e-4)


def test_every_fourth_image_has_a_partner_up_to_120_degrees_away(data):
    pairs = data.pairs()
    assert [pair.first for pair in pairs] == [0, 4] and pairs == data.pairs()
    assert 0 < pairs[0].second < 4, "the last is 130 degrees away"
    assert pairs[0].degrees == pytest.approx(trees.NAVI_DEGREES[pairs[0].second], abs=1e-4)
    (plate,) = data.parts()
    assert plate.thing == "plate" and plate.pairs() == pairs


def test_an_image_without_a_near_partner_is_in_no_pair(data, tmp_path):
    path = tmp_path / "plate" / "wild_set" / "annotations.json"
    far = [e for e in json.loads(path.read_text()) if e["filename"] in ("000.jpg", "004.jpg")]
    path.write_text(json.dumps(far))
    lonely = Navi(root=data.root, limit=2)
    assert lonely.pairs() == []
    numbers = TwoViewRecall(name="n", data=lonely).run(Context())
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
    numbers = TwoViewRecall(name="n", data=data, side=64, matches=200).run(Context())
    assert numbers["pairs"] == 2
    assert numbers["recall"] > 0.9 and numbers["5cm"] > 0.95
    assert numbers["normed_recall"] < 0.2, "those are noise"
    blind = TwoViewRecall(name="n", data=data, side=64, matches=200).run(Context(blind=True))
    assert blind["recall"] < 0.2
    assert 0 < numbers["5px"] <= numbers["25px"] <= numbers["50px"] <= 1.0


def test_another_pose_is_another_answer(data, tmp_path):
    """What is compared is the poses' motion, not the features alone."""
    path = tmp_path / "plate" / "wild_set" / "annotations.json"
    evaluator = TwoViewRecall(name="n", data=data, side=64, matches=200)
    tokens = [f.last_raw[0] for f in Context().batches(data, types.SimpleNamespace(
        last_raw=True, tokens=True), size=512, batch_size=1)]  # fmt: skip
    pair = ViewPair(0, 2, 40.0)
    right = evaluator.hits(MESH, evaluator.places(data, pair), (tokens[0], tokens[2])).right
    entries = json.loads(path.read_text())
    next(e for e in entries if e["filename"] == "002.jpg")["camera"]["q"] = [1.0, 0.0, 0.0, 0.0]
    path.write_text(json.dumps(entries))
    places = evaluator.places(Navi(root=data.root, limit=5), pair)
    wrong = evaluator.hits(MESH, places, (tokens[0], tokens[2])).right
    assert right.shape == wrong.shape == (200, 6)
    assert right[:, 1].mean() > 0.8 and wrong[:, 1].mean() < 0.2


GONE = "gone"


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("plate/wild_set/annotations.json", GONE, "annotations.json cannot be read"),
        ("plate/wild_set", GONE, "it holds no images"),
        ("plate/wild_set/images/003.jpg", GONE, "1 of its files are missing"),
        ("plate/wild_set/depth", GONE, "5 of its files are missing"),
        ("plate/wild_set/annotations.json", b'[{"filename": ', "annotations.json is no JSON"),
        ("plate/wild_set/annotations.json", b"[{}]", "is not NAVI's: KeyError"),
        ("plate/wild_set/annotations.json", b'[{"filename": 3}]', "is not NAVI's: Attr"),
        ("plate/wild_set/depth/001.png", b"", "a depth map cannot be read .*001.png"),
    ],
)
def test_damage_is_one_line(data, tmp_path, path, content, message):
    damage(tmp_path / path, content)
    with pytest.raises(UserError, match=rf"^Navi in .*{message}.*; get it from http") as error:
        data.open()
    assert "\n" not in str(error.value)


def damage(path, content):
    path.rename(path.with_name("was")) if content == GONE else path.write_bytes(content)


def test_a_depth_map_of_eight_bits_is_another_data_set(data, tmp_path):
    path = tmp_path / "plate/wild_set/depth/001.png"
    trees.raster(path, np.full((64, 64), 100, np.uint8))
    with pytest.raises(UserError, match=r"001.png is not a PNG of one channel and 16 bits.*http"):
        data.open()
    assert not data.points(1, 128).any()


def test_an_image_that_cannot_be_read_is_black_and_has_no_matches(data, tmp_path, caplog):
    (tmp_path / "plate/wild_set/depth/004.png").write_bytes(b"")
    assert not data.image(4).any() and "unreadable: image 4" in caplog.text
    assert not data.points(4, 128).any()
    numbers = TwoViewRecall(name="n", data=data, side=64, matches=200).run(Context())
    assert numbers["pairs"] == 2 and numbers["recall"] > 0.9, "that of the other pair"
