# SPDX-License-Identifier: Apache-2.0
"""Keypoints of made scenes: whose they are, where they lie, and which scenes make a pair."""

import numpy as np
import pytest

from input_pipeline.decode import encode_png16
from input_pipeline.scene_parts import SceneParts
from input_pipeline.store import finish_sidecar, finish_store, write_shard
from mtv_jax.core.errors import UserError
from tests.input_pipeline.scene_store import SCENES, scene_store
from tools.scenes.labels import FIELDS, encode_jpeg
from tools.scenes.sample import make_sample


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> SceneParts:
    return SceneParts(store=str(scene_store(tmp_path_factory.mktemp("scenes"))))


def test_pairs_are_of_one_class_and_their_points_on_its_parts(data):
    data.open()
    rows, pairs = 0, 0
    for category in data.categories():
        only = data.only(category)
        rows += len(only)
        for pair in only.pairs("all", count=5, size=64):
            pairs += 1
            assert pair.source != pair.target and 0 < pair.scale <= 1
            assert len(pair.source_points) == len(pair.target_points) > 0
            for row, points in (
                (pair.source, pair.source_points),
                (pair.target, pair.target_points),
            ):
                assert only.image(row).shape[0] == only.image(row).shape[1]
                assert points.min() >= 0 and points.max() < 1
    assert rows == SCENES and pairs > 5


def test_a_keypoint_is_the_part_that_the_renderer_drew(data):
    """Over all scenes: the pixel at each place is of that part of the main object."""
    names = data.scenes.class_names()
    seen = 0
    for index, label in enumerate(data.scenes.labels()):
        sample = make_sample(0, "test", index, 64)
        only = data.only(names[label])
        row = list(only._rows).index(index)
        thing = only._thing(row)
        side = max(sample.rendering.depth.shape)
        for name, place in thing.places.items():
            column, line = (np.asarray(place) * side).astype(int)
            solid = sample.scene.solids[sample.rendering.solid[line, column]]
            assert solid.owner == 0 and name == f"{names[label]}/{solid.part.name}"
            seen += 1
        left, top, right, bottom = sample.seen[0].box
        height, width = sample.rendering.depth.shape
        longer = max((right - left) * width, (bottom - top) * height)
        assert thing.longer * side == pytest.approx(longer)
    assert seen > SCENES


CUP, POT = 0, 1
SCENE = dict(
    key="0",
    class_id=CUP,
    names=["cup/handle", "cup/rim", "pot/lid"],
    points=[[0.5, 0.5], [0.25, 1.0], [0.1, 0.1]],
    visible=[1, 1, 1],
)


def by_hand(path, *changes) -> SceneParts:
    """A store of scenes of 40 x 20 pixels whose main object is 10 x 4 pixels large."""
    scenes = [{**SCENE, "key": str(i), **change} for i, change in enumerate(changes)]
    image = encode_jpeg(np.zeros((20, 40, 3), np.uint8))
    base = [dict(key=s["key"], image=image, class_id=s["class_id"]) for s in scenes]
    labels = [
        dict(
            key=scene["key"],
            segmentation=encode_png16(segments(scene["class_id"])),
            keypoints=np.ravel(scene["points"]).astype(np.float32),
            keypoint_names=scene["names"],
            keypoint_visible=np.asarray(scene["visible"]),
        )
        for scene in scenes
    ]
    write_shard(path, "images", 0, base)
    finish_store(path, "hand", FIELDS["images"], {"classes": ["cup", "pot"]})
    write_shard(path, "scene_v1", 0, labels)
    finish_sidecar(path, "scene_v1", FIELDS["scene_v1"], {})
    return SceneParts(store=str(path))


def segments(class_id):
    raster = np.zeros((20, 40), np.uint16)
    raster[3:13, 8:12] = class_id + 1
    raster[0, :] = 2 - class_id  # the other class, all along the border
    return raster


def test_places_and_box_by_hand(tmp_path):
    moved = dict(points=[[0.0, 0.2], [0.5, 0.5], [0.3, 0.3]])
    data = by_hand(tmp_path, {}, {"class_id": POT, "names": ["pot/a", "pot/b", "cup/rim"]}, moved)
    assert data.categories() == ["cup", "pot"] and len(data.only("cup")) == 2
    pairs = data.only("cup").pairs("all", count=9, size=40)
    assert sorted((pair.source, pair.target) for pair in pairs) == [(0, 1), (1, 0)]
    pair = next(pair for pair in pairs if pair.source == 0)
    # Of 40 x 40: heights are halved, and the lid is another object's.
    np.testing.assert_allclose(pair.source_points, [[0.5, 0.25], [0.25, 0.5]])
    np.testing.assert_allclose(pair.target_points, [[0.0, 0.1], [0.5, 0.25]])
    assert pair.scale == 10 / 40
    assert data.only("pot").pairs("all", count=9, size=40) == []
    assert data.image(0).shape == (40, 40, 3) and data.image(0)[20:].min() == 255


def test_what_is_hidden_or_shared_by_two_objects_is_no_keypoint(tmp_path):
    hidden = by_hand(tmp_path / "a", {}, {"visible": [0, 1, 1]})
    for pair in hidden.pairs("all", count=9, size=40):
        assert len(pair.source_points) == 1, "the rim alone"
    twice = {"names": ["cup/handle", "cup/rim", "cup/rim"]}
    assert by_hand(tmp_path / "b", {}, twice).pairs("all", count=9, size=40) == []
    none = {"names": [], "points": [], "visible": []}
    assert by_hand(tmp_path / "c", {}, none).pairs("all", count=9, size=40) == []


def test_pairs_are_as_many_as_asked_for_and_always_the_same(tmp_path):
    data = by_hand(tmp_path, *[{}] * 5)
    assert len(data.pairs("all", count=100, size=40)) == 20
    chosen = [(p.source, p.target) for p in data.pairs("all", count=7, size=40)]
    again = [(p.source, p.target) for p in data.pairs("all", count=9, size=64)]
    assert len(set(chosen)) == 7 and again[:7] == chosen


def test_a_store_without_keypoints_is_one_line(tmp_path):
    write_shard(tmp_path, "images", 0, [{"key": "0", "class_id": 0}])
    finish_store(tmp_path, "bare", FIELDS["images"], {"classes": ["cup"]})
    with pytest.raises(UserError, match=r"has no sidecar 'scene_v1'; make scenes, .*make_scenes$"):
        SceneParts(store=str(tmp_path)).open()
