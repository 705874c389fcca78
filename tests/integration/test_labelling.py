# SPDX-License-Identifier: Apache-2.0
"""From a folder of images to a trained and exported model, with labels by experts on the way."""

import json
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from input_pipeline import licences
from input_pipeline.store import Store
from tests.integration.helpers import WHOLE, run, train_command
from tools.data.train_tokenizer import main as train_tokenizer

pytestmark = pytest.mark.torch
pytest.importorskip("torch.nn", reason="PyTorch is not installed (make test-torch)")

from tests.torch import tiny_experts  # noqa: E402

WORDS = ("a dog on the grass", "two red houses", "trees by the sea", "the old car", "of the and")
EXPERTS = "ram_plus,caption_phrases,owlv2,depth_anything_v2:base"
VOCAB_SIZE = 28
PHRASES = ("dog", "grass", "red houses", "trees", "sea", "old car", "tree", "car")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pathlib.Path:
    """Pictures of four shapes with captions."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(40):
        size = [(46, 60), (64, 48), (50, 50), (46, 90)][number % 4]
        coarse = generator.integers(0, 255, (5, 6, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize(size[::-1]).save(folder / f"{number:02}.jpg")
        (folder / f"{number:02}.txt").write_text(WORDS[number % len(WORDS)])
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> list[str]:
    """Flags that name tiny experts and ask little of them."""
    root = tmp_path_factory.mktemp("weights")
    ram = tiny_experts.ram_plus(root / "ram", PHRASES)
    settings = {
        **{f"ram_plus.{name}": path for name, path in ram.items()},
        "owlv2.weights": tiny_experts.owlv2(root / "owl"),
        "depth_anything_v2.weights": tiny_experts.depth_anything(root / "depth"),
        "depth_anything_v2.least_agreement": -1.0,
        "depth_anything_v2.mirror_side": 28,
    }
    return [f"--config.experts.{name}={value}" for name, value in settings.items()]


@pytest.fixture(scope="module")
def world(images, weights, tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("world")
    ingest = ["tools.data.ingest", f"--input={images}", "--min_side=32", "--rows_per_shard=16"]
    nobody = ["tools.label", f"--store={root / 'x'}", f"--input={images}", "--experts=owlv2,owl3"]
    output = run([sys.executable, "-m", *nobody], expect=2)
    assert "no expert 'owl3' in the config (did you mean \"owlv2\"?)" in output
    assert not (root / "x").exists(), "asked before any work"
    for split in ("train", "test"):
        run([sys.executable, "-m", *ingest, f"--output={root / split}", "--workers=1"])
        label = ["tools.label", f"--store={root / split}", f"--experts={EXPERTS}", "--device=cpu"]
        output = run([sys.executable, "-m", *label, *weights])
    assert "caption_tags_v1: CaptionPhrases, that of the captions: unknown" in output
    assert "depth_v1: DepthAnythingV2, CC-BY-NC-4.0: NOT for commercial use" in output
    assert (
        "regions_v1: Owlv2, Apache-2.0, made from caption_tags_v1, ram_tags_v1: unknown" in output
    )
    arguments = ["--store", str(root / "train"), "--output", str(root / "tokenizer.model")]
    assert train_tokenizer([*arguments, "--vocab_size", str(VOCAB_SIZE)]) == 0
    return root


def test_every_image_is_labelled_or_counted(world):
    opened = Store.open(world / "train", ("regions_v1", "depth_v1", "ram_tags_v1"))
    assert opened.shard_rows == (16, 16, 8)
    columns = ("boxes", "phrases", "mentioned", "depth", "depth_agreement", "ram_tags")
    rows = [opened.read(*opened.locate(row), columns) for row in range(40)]
    for sidecar, column in (("regions_v1", "boxes"), ("depth_v1", "depth")):
        labelled = [row for row in rows if column in row]
        funnels = [
            json.loads((world / "train" / f"{sidecar}-{shard:05d}.funnel.json").read_text())
            for shard in range(3)
        ]
        assert sum(funnel["labelled"] for funnel in funnels) == len(labelled) >= 20
        without = {key for funnel in funnels for key in funnel["rejections"]}
        assert without == {row["key"][0].decode() for row in rows if column not in row}
    looked_for = {bytes(phrase).decode() for row in rows for phrase in row.get("phrases", ())}
    of_captions = {"dog", "grass", "two red houses", "trees", "sea", "old car"}
    assert looked_for <= {*PHRASES, *of_captions}
    (terms,) = licences.terms(world / "train", ["regions_v1"])
    assert terms.made_from == ("caption_tags_v1", "ram_tags_v1")


def test_one_command_from_images_to_labels(images, tmp_path):
    label = ["tools.label", f"--store={tmp_path / 'store'}", f"--input={images}"]
    for _ in range(2):
        output = run([sys.executable, "-m", *label, "--experts=caption_phrases"])
    assert "caption_phrases: " in output and "has a sidecar caption_tags_v1 already" in output
    opened = Store.open(tmp_path / "store", ("caption_tags_v1",))
    rows = [opened.read(0, row, ["caption_tags"]) for row in range(40)]
    assert sum("caption_tags" in row for row in rows) == 32, "one in five says nothing"


def test_the_store_is_sound(world):
    assert "sound" in run([sys.executable, "-m", "tools.data.verify", str(world / "train")])


def test_all_objectives_train_on_it_and_the_card_says_whose_labels_they_are(world, tmp_path):
    settings = {
        "model.vocab_size": VOCAB_SIZE,
        "mesh.data": 2,
        "objectives.grounding.least_side": 1.0,
        "objectives.grounding.texts": "full_vocab",
    }
    command = train_command(world, tmp_path / "run", tasks=WHOLE, total_steps=3, **settings)
    command = [part for part in command if not part.startswith("--config.evals")]
    run([*command, "--config.evals={}"], devices=2)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    for name in ("sigmoid_vl", "self_distill", "masked_pred", "grounding", "depth"):
        assert np.isfinite(last[f"{name}/loss"]) and last[f"{name}/loss"] > 0, name
    (data,) = json.loads((tmp_path / "run" / "data.json").read_text())
    assert data["rows"] == 40
    folder = tmp_path / "export"
    export = ["mtv_jax.export", f"--workdir={tmp_path / 'run'}", f"--output={folder}"]
    output = run([sys.executable, "-m", *export])
    assert "not for commercial use: it learned from depth_v1 by DepthAnythingV2 (CC-BY-NC" in output
    assert (
        "| depth_v1 | DepthAnythingV2 | CC-BY-NC-4.0 | NOT allowed |"
        in (folder / "README.md").read_text()
    )
