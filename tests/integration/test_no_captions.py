# SPDX-License-Identifier: Apache-2.0
"""A folder of plain images without captions, and depth maps: the whole way without a text."""

import pathlib
import sys

import cv2
import numpy as np
import pytest

import mtv_jax.interop
from input_pipeline.store import Store
from mtv_jax.core.errors import UserError
from tests.integration.helpers import ROOT, run

ROWS = 48


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> pathlib.Path:
    """Bright squares, near; and what a label tool would say of them, kept apart."""
    root = tmp_path_factory.mktemp("plain")
    draw = np.random.default_rng(0)
    for row in range(ROWS):
        inside = np.zeros((40, 48), bool)
        y, x = draw.integers(0, 24), draw.integers(0, 32)
        inside[y : y + 16, x : x + 16] = True
        shade = np.where(inside, 230, 40)[..., None] + draw.integers(0, 20, (40, 48, 3))
        for folder, pixels in (("photos", shade), ("maps", np.where(inside, 60_000, 9_000))):
            (root / folder).mkdir(exist_ok=True)
            kind = np.uint8 if folder == "photos" else np.uint16
            assert cv2.imwrite(str(root / folder / f"{row:03}.png"), pixels.astype(kind))
    tools = [sys.executable, "-m"]
    path = root / "store"
    ingest = [*tools, "tools.data.ingest", "--input", str(root / "photos"), "--output", str(path)]
    output = run([*ingest, "--min_side", "32"])
    assert "tasks=depth" in output, "what can be done without captions is said"
    run([*tools, "tools.data.split", str(path), "--heldout", "16"])
    return path


def _train(store: pathlib.Path, workdir: pathlib.Path, *, expect: int = 0) -> str:
    config = f"--config={ROOT / 'configs' / 'quickstart.py'}:store={store},tasks=depth"
    settings = {"batch_size": 16, "total_steps": 8, "model.image_size": 32, "optim.warmup_steps": 2}
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "-m", "mtv_jax.train", config, f"--workdir={workdir}"]
    return run([*command, *flags], expect=expect)


def test_without_labels_it_says_what_is_missing(store, tmp_path):
    if Store.open(store).sidecars:
        pytest.skip("the next test has labelled the store")
    error = _train(store, tmp_path / "run", expect=2)
    assert "has no finished sidecar 'depth_v1' (it has: none)" in error
    assert "tools.data.depth_maps" in error and "Traceback" not in error


def test_with_labels_it_trains_exports_and_predicts(store, tmp_path):
    maps = str(store.parent / "maps")
    label = [sys.executable, "-m", "tools.data.depth_maps", "--store", str(store), "--maps", maps]
    run([*label, "--are", "disparity"])
    workdir, folder = tmp_path / "run", tmp_path / "export"
    assert "DONE" in _train(store, workdir)
    assert "text" not in (workdir / "params.tsv").read_text()
    assert "tokenizer" not in (workdir / "preprocessing.json").read_text()
    assert "DONE" in _train(store, workdir), "it can be reopened"

    run([sys.executable, "-m", "mtv_jax.export", f"--workdir={workdir}", f"--output={folder}"])
    image = store.parent / "photos" / "000.png"
    loaded = mtv_jax.interop.load(folder)
    assert loaded.maps([image])["depth/disparity"].shape == (1, 32, 32)
    with pytest.raises(UserError, match="has no text tower"):
        loaded.logits([image], ["a square"])
    predict = [sys.executable, "-m", "mtv_jax.predict", f"--output={tmp_path / 'seen'}"]
    for model in (workdir, folder):
        run([*predict, f"--model={model}", str(image)])
    assert (tmp_path / "seen" / "000.png").is_file()
    captions = tmp_path / "captions.txt"
    captions.write_text("a square\n")
    error = run([*predict, f"--model={folder}", f"--captions={captions}", str(image)], expect=2)
    assert "no text tower" in error
