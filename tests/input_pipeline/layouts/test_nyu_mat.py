# SPDX-License-Identifier: Apache-2.0
"""NYUv2 in MATLAB's files: places, threads, processes, damaged rows."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from input_pipeline.layouts import nyu_mat
from input_pipeline.layouts.nyu_mat import NyuMat
from mtv_jax.core.errors import UserError
from tests.input_pipeline.layouts.readers import each


@each("nyu_mat")
def test_nyu_as_its_distributor_ships_it(made):
    """Rows and columns in their places, without the border; depth in whole millimetres."""
    image, depth = made.image(1), made.raster(1, "metric_depth")
    assert image.shape == (480, 640, 3) and image[7, 7].tolist() == [102] * 3
    assert image[473, 631].tolist() == [10, 20, 30]
    inside = np.zeros((480, 640), bool)
    inside[7:474, 7:632] = True
    assert not image[~inside].any() and image[inside].all()
    assert depth.dtype == np.float32 and depth.shape == (480, 640)
    assert depth[47, 41] == np.float32(2.5) and depth[45, 41] == depth[46, 41] == 0.0
    assert (depth > 0).sum() == 426 * 560 - 2 and not list(made.faults())
    train = NyuMat(root=made.root, split="train")
    assert len(train) == 1 and train.image(0)[7, 7].tolist() == [101] * 3


@each("nyu_mat")
def test_nyu_is_read_by_many_threads(made):
    """As by one."""
    wanted = [made.image(row) for row in (0, 1)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(made.image, [0, 1] * 20))
    assert all((image == wanted[row % 2]).all() for row, image in enumerate(found))


@each("nyu_mat")
def test_every_process_opens_nyu_for_itself(made, monkeypatch):
    """After a fork, for instance."""
    path, opened, processes = made.items[0].path, nyu_mat._opened, []

    def record(path, process):
        processes.append(process)
        return opened(path, process)

    monkeypatch.setattr(nyu_mat, "_opened", record)
    monkeypatch.setattr(nyu_mat.os, "getpid", lambda: -1)
    assert made.image(0).any() and made.raster(0, "metric_depth").any()
    assert processes == [-1, -1] and opened(path, -1) is not opened(path, -2)


@each("nyu_mat")
def test_rows_of_nyu_that_cannot_be_read(made, caplog):
    """Damage inside a row's compressed bytes."""
    row, path = made.items[1].extra, made.items[0].path
    with pytest.importorskip("h5py").File(path) as file:
        places = [file[name].id.get_chunk_info(row).byte_offset for name in ("images", "rawDepths")]
    with open(path, "r+b") as file:
        for place in places:
            file.seek(place + 512 + 100)
            file.write(b"damage" * 20)
    made.open()
    assert not made.image(1).any() and "unreadable: image 1 of" in caplog.text
    assert made.raster(1, "metric_depth").shape == (1, 1)
    (fault,) = made.faults()
    assert fault.startswith(f"{path}: row 2 of rawDepths: ")
    assert made.image(0).any()


@pytest.mark.parametrize("package", ["h5py", "scipy.io"])
@each("nyu_mat")
def test_without_the_packages_of_nyu_the_remedy_is_named(made, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install h5py scipy$"):
        made.open()
