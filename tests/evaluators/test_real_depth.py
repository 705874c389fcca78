# SPDX-License-Identifier: Apache-2.0
"""Real scenes with true depth, ingested and labelled by our tools, under the evaluator."""

import os
import pathlib
import shutil

import numpy as np
import pytest

from input_pipeline.eval_set import EvalSet
from mtv_jax.evaluators.relative_depth import HeadDepth
from tools.data.depth_maps import main as write_maps
from tools.data.ingest import main as ingest

_ROOT = pathlib.Path(__file__).parents[2]
_DATA = pathlib.Path(os.environ.get("MTV_SHARED_DATA", _ROOT.parent / "shared" / "data"))
SCENES = ("aloe", "castel_0000", "motorcycle")
# Of motorcycle and castel the distance is known, of aloe a disparity.
TRUTHS = {
    "depth": (("--suffix", "_depth_mm", "--suffix", "_depth_0.1mm"), 2),
    "disparity": (("--suffix", "_disp_x256"), 2),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> pathlib.Path:
    maps = _DATA / "labels" / "depth"
    if not maps.is_dir():
        pytest.skip(f"no scenes: {maps} is absent (set MTV_SHARED_DATA)")
    root = tmp_path_factory.mktemp("scenes")
    (root / "photos").mkdir()
    for name in SCENES:
        shutil.copy(maps / f"{name}.jpg", root / "photos")
    path = root / "store"
    assert ingest(["--input", str(root / "photos"), "--output", str(path), "--workers", "1"]) == 0
    for kind, (suffixes, _) in TRUTHS.items():
        where = ["--store", str(path), "--maps", str(maps), "--are", kind, *suffixes]
        name = ["--column", "metric_depth", "--sidecar", f"{kind}_v1", "--workers", "1"]
        assert write_maps([*where, *name]) == 0
    return path


@pytest.mark.parametrize("kind", TRUTHS)
def test_the_truth_has_no_error_and_a_constant_the_analytic_one(store, kind):
    data = EvalSet(store=str(store), sidecars=(f"{kind}_v1",))
    settings = {"data": data, "truth_is": kind, "train": data}
    evaluator = HeadDepth(name="depth", **settings)
    truths = list(evaluator.truths())
    known = [truth[truth > 0] for truth in truths]
    assert sum(map(bool, map(len, known))) == TRUTHS[kind][1]
    errors = evaluator.errors([3.0 * truth - truth.max() for truth in truths])
    assert np.nanmax(errors) < 1e-6
    analytic = [np.mean(np.abs(y.mean() - y) / y) if len(y) else np.nan for y in known]
    np.testing.assert_allclose(evaluator.errors([np.ones_like(t) for t in truths]), analytic)
    assert np.nanmin(analytic) > 0.05
