# SPDX-License-Identifier: Apache-2.0
"""Depth Anything V2 and OWLv2 against transformers' own processing, on tiny random weights."""

import pathlib

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (make test-torch)")
import transformers  # noqa: E402

from input_pipeline import decode  # noqa: E402
from mtv_jax.core.errors import UserError  # noqa: E402
from tests.torch import tiny_experts  # noqa: E402
from tools.data.depth_values import Rejected  # noqa: E402
from tools.label.base import Sample  # noqa: E402
from tools.label.experts import ram_plus_files  # noqa: E402
from tools.label.experts.depth_anything_v2 import DepthAnythingV2  # noqa: E402
from tools.label.experts.owlv2 import Owlv2  # noqa: E402
from tools.label.experts.ram_plus import RamPlus  # noqa: E402
from tools.label.experts.ram_plus_files import TagList  # noqa: E402
from tools.label.experts.ram_plus_network import RamPlus as RamPlusNetwork  # noqa: E402
from tools.label.experts.ram_plus_network import Shape, tag  # noqa: E402

pytestmark = pytest.mark.torch
# (height, width): wide, tall, square, a strip, tiny.
SIZES = [(60, 91), (120, 75), (64, 64), (24, 160), (7, 5)]
TAGS = ["red dog", "house", "tree 2"]


def image(size: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(sum(size))
    coarse = rng.integers(0, 255, (4, 5, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((size[0] // 4 + 1, size[1] // 5 + 1, 1), np.uint8))[
        : size[0], : size[1]
    ]


def labelled(labeller, size, **columns):
    """One image in a batch of two shapes' worth: the same image twice."""
    sample = Sample(key="k", image=image(size), columns=columns)
    prepared = labeller.prepare(sample)
    first, second = labeller.label([prepared, prepared])
    assert type(first) is type(second)
    return first


@pytest.fixture(scope="module")
def depth(tmp_path_factory):
    return str(tiny_experts.depth_anything(tmp_path_factory.mktemp("depth")))


@pytest.fixture(scope="module")
def owl(tmp_path_factory):
    return str(tiny_experts.owlv2(tmp_path_factory.mktemp("owl") / "weights"))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_depth_is_that_of_transformers(depth, size):
    expert = DepthAnythingV2(name="d", weights=depth, short_side=32, least_spread=0.0)
    raster = decode.decode_png16(labelled(expert.load("cpu"), size)["depth"])
    scale = min(32 / min(size), 1)
    wanted = tuple(round(side * scale) for side in size)
    processor = transformers.AutoImageProcessor.from_pretrained(depth)
    model = transformers.AutoModelForDepthEstimation.from_pretrained(depth).eval()
    with torch.inference_mode():
        outputs = model(**processor(image(size), return_tensors="pt"))
    (theirs,) = processor.post_process_depth_estimation(outputs, target_sizes=[wanted])
    values = theirs["predicted_depth"].numpy()
    assert raster.shape == wanted and raster.min() == 0 and raster.max() == 65535
    scaled = (values - values.min()) / (values.max() - values.min())
    np.testing.assert_allclose(raster / 65535, scaled, atol=2e-4)


def test_a_flat_map_is_rejected(depth):
    labeller = DepthAnythingV2(name="d", weights=depth, least_spread=10.0).load("cpu")
    rejected = labelled(labeller, (60, 91))
    assert isinstance(rejected, Rejected) and rejected.reason == "a flat map"


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_boxes_are_those_of_transformers(owl, size):
    """Before suppression; theirs may reach beyond the image, ours are cut."""
    expert = Owlv2(
        name="o", weights=owl, min_score=0.0, max_overlap=1.0, max_boxes=99, min_side=0.0
    )
    found = labelled(expert.load("cpu"), size, tags=[tag.encode() for tag in TAGS])
    processor = transformers.AutoProcessor.from_pretrained(owl)
    model = transformers.Owlv2ForObjectDetection.from_pretrained(owl).eval()
    texts = [[f"a photo of a {tag}" for tag in TAGS]]
    inputs = processor(text=texts, images=image(size), return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    (theirs,) = processor.post_process_grounded_object_detection(
        outputs, threshold=0.0, target_sizes=[size], text_labels=[TAGS]
    )
    order = np.argsort(-theirs["scores"].numpy(), kind="stable")
    boxes = theirs["boxes"].numpy()[order] / [size[1], size[0], size[1], size[0]]
    np.testing.assert_allclose(found["scores"], theirs["scores"].numpy()[order], atol=1e-5)
    np.testing.assert_allclose(found["boxes"], np.clip(boxes, 0, 1), atol=1e-5)
    assert found["phrases"] == [theirs["text_labels"][index] for index in order]
    assert len(boxes) == 16 and np.std(found["boxes"]) > 0.05


def test_limits_of_boxes(owl):
    one = Owlv2(name="o", weights=owl, min_score=0.0, max_overlap=0.0, max_boxes=2, min_side=0.0)
    found = labelled(one.load("cpu"), (60, 91), tags=[b"house"])
    assert 1 <= len(found["scores"]) <= 2
    large = Owlv2(name="o", weights=owl, min_side=2.0)
    none = labelled(large.load("cpu"), (60, 91), tags=[b"a"])
    assert isinstance(none, Rejected) and none.reason == "no box that is good enough"
    with pytest.raises(Rejected, match="no tags"):
        one.load("cpu").prepare(Sample(key="k", image=image((8, 8)), columns={}))


def test_tags_of_ram_plus_are_the_most_probable_first(monkeypatch, tmp_path):
    """A small network in the place of the published one; its own test compares the logits."""
    torch.manual_seed(0)
    names = TagList(names=("dog", "cat", "house", "tree"), thresholds=np.zeros(4, np.float32))
    shape = Shape(embed_dim=8, depths=(1, 1), num_heads=(2, 2), decoder_dim=16, decoder_heads=2)
    network = RamPlusNetwork(names, shape)
    torch.nn.init.normal_(network.label_embed)
    torch.nn.init.normal_(network.fc.weight, std=2.0)
    monkeypatch.setattr(ram_plus_files, "load_ram_plus", lambda **paths: network)
    paths = {name: str(tmp_path / name) for name in ("weights", "tags", "thresholds")}
    for path in paths.values():
        pathlib.Path(path).write_text(path)
    labeller = RamPlus(name="r", max_tags=3, **paths).load("cpu")
    found = labelled(labeller, (60, 91))
    pixels = ram_plus_files.preprocess(image((60, 91)))
    expected = dict(tag(network, np.stack([pixels]))[0])
    order = sorted(expected, key=lambda name: -expected[name])[:3]
    assert found["tags"] == order and len(expected) == 4
    np.testing.assert_allclose(found["tag_scores"], [expected[name] for name in order], rtol=1e-4)
    names.thresholds[:] = 1.0
    assert labelled(labeller, (60, 91)).reason == "no tag above its threshold"


@pytest.mark.parametrize("expert", [DepthAnythingV2, Owlv2])
def test_weights_that_are_missing_are_one_line(expert, tmp_path):
    settings = expert(name="x", weights=str(tmp_path))
    with pytest.raises(
        UserError, match=r"no weights at .*save_pretrained.*huggingface.co"
    ) as caught:
        settings.load("cpu")
    assert "\n" not in str(caught.value)
