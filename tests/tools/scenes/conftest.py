# SPDX-License-Identifier: Apache-2.0
"""A small pair of made-scene stores, and what its records say."""

import pathlib
from types import SimpleNamespace

import numpy as np
import pytest

from input_pipeline.decode import decode_image, decode_png16
from input_pipeline.store import Store
from tools.scenes.labels import HOLDERS
from tools.scenes.writer import Settings, write_stores

SETTINGS = Settings(train=24, test=64, size=64)


@pytest.fixture(scope="session")
def scene_stores(tmp_path_factory) -> pathlib.Path:
    """Folder of the stores `train` and `test` of SETTINGS."""
    output = tmp_path_factory.mktemp("scenes")
    write_stores(output, SETTINGS, workers=1)
    return output


@pytest.fixture(scope="session")
def test_scenes(scene_stores) -> list[SimpleNamespace]:
    """The decoded records of the test store."""
    opened = Store.open(scene_stores / "test", HOLDERS["test"][1:])
    return [_decoded(opened, row) for row in range(opened.num_rows)]


def _decoded(opened: Store, row: int) -> SimpleNamespace:
    columns = opened.read(*opened.locate(row), opened.fields)
    rasters = ("depth", "segmentation", "metric_depth", "view2_metric_depth")
    return SimpleNamespace(
        index=row,
        caption=columns["caption"][0].decode(),
        class_id=int(columns["class_id"][0]),
        size=(int(columns["height"][0]), int(columns["width"][0])),
        boxes=columns["boxes"].reshape(-1, 4),
        phrases=[phrase.decode() for phrase in columns["phrases"]],
        image=decode_image(columns["image"][0]),
        view2_image=decode_image(columns["view2_image"][0]),
        **{name: decode_png16(columns[name][0]).astype(np.int64) for name in rasters},
        pose=columns["pose"].reshape(4, 4).astype(np.float64),
        view2_pose=columns["view2_pose"].reshape(4, 4).astype(np.float64),
        intrinsics=columns["intrinsics"].astype(np.float64),
        keypoints=columns["keypoints"].reshape(-1, 2),
        keypoint_names=[name.decode() for name in columns["keypoint_names"]],
        keypoint_visible=columns["keypoint_visible"].astype(bool),
    )
