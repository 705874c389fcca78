# SPDX-License-Identifier: Apache-2.0
"""Depth Anything V2 and OWLv2 against transformers' own processing, on tiny random weights."""

import io
import pathlib
import shutil
import types

import numpy as np
import pytest
import safetensors.numpy

torch = pytest.importorskip("torch", reason="PyTorch is not installed (make test-torch)")
import transformers  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

from input_pipeline import decode  # noqa: E402
from mtv_jax.core.errors import UserError  # noqa: E402
from tests.torch import tiny_experts  # noqa: E402
from tools.data.curate import Limits, curate  # noqa: E402
from tools.data.depth_values import Rejected  # noqa: E402
from tools.label.base import Sample, digest_of  # noqa: E402
from tools.label.experts import pixels, ram_plus_files  # noqa: E402
from tools.label.experts.depth_anything_v2 import (  # noqa: E402
    DepthAnythingV2,
    _check_kind,
    _Depth,
    _Map,
    encoded,
)
from tools.label.experts.owlv2 import Owlv2  # noqa: E402
from tools.label.experts.ram_plus import RamPlus  # noqa: E402

pytestmark = pytest.mark.torch
# (height, width): wide, tall, square, a strip, tiny.
SIZES = [(60, 91), (120, 75), (64, 64), (24, 160), (7, 5), (3, 5), (1, 3)]
ANY_SCORE = dict(min_score=0.0, min_score_unmentioned=0.0)
LAST = "channels_last"  # told, because an image may be as high as it has channels
TAGS = ["red dog", "house", "tree 2"]


def image(size: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(sum(size))
    coarse = rng.integers(0, 255, (4, 5, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((size[0] // 4 + 1, size[1] // 5 + 1, 1), np.uint8))[
        : size[0], : size[1]
    ]


def outcome(labeller, size, **columns):
    return outcome_of(labeller, image(size), **columns)


def outcome_of(labeller, pixels, **columns):
    """One image, which is twice in its batch."""
    sample = Sample(key="k", image=pixels, columns=columns)
    prepared = labeller.prepare(sample)
    first, second = map(labeller.finish, [prepared] * 2, labeller.infer([prepared] * 2))
    assert first.reason == second.reason and first.labels.keys() == second.labels.keys()
    return first


@pytest.fixture(scope="module")
def depth(tmp_path_factory):
    return str(tiny_experts.depth_anything(tmp_path_factory.mktemp("depth")))


@pytest.fixture(scope="module")
def owl(tmp_path_factory):
    return str(tiny_experts.owlv2(tmp_path_factory.mktemp("owl") / "weights"))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_depth_is_that_of_transformers(depth, size):
    expert = DepthAnythingV2(
        name="d", weights=depth, short_side=32, bits=16, least_spread=0.0, mirror_side=0
    )
    found = outcome(expert.load("cpu"), size).labels
    raster = decode.decode_png16(found["depth"])
    scale = min(32 / min(size), 1)
    wanted = tuple(round(side * scale) for side in size)
    processor = transformers.AutoImageProcessor.from_pretrained(depth)
    model = transformers.AutoModelForDepthEstimation.from_pretrained(depth).eval()
    with torch.inference_mode():
        inputs = processor(image(size), input_data_format=LAST, return_tensors="pt")
        outputs = model(**inputs)
    (theirs,) = processor.post_process_depth_estimation(outputs, target_sizes=[wanted])
    values = theirs["predicted_depth"].numpy().reshape(wanted)
    assert raster.shape == wanted and raster.min() == 0 and raster.max() == 65535
    scaled = (values - values.min()) / (values.max() - values.min())
    np.testing.assert_allclose(raster / 65535, scaled, atol=2e-4)


LARGER = [*SIZES, (300, 440), (1030, 700)]


@pytest.mark.parametrize("size", LARGER, ids=str)
@pytest.mark.parametrize("resample", [2, 3])
def test_pixels_of_depth_are_those_of_transformers(size, resample):
    processor = transformers.models.dpt.image_processing_pil_dpt.DPTImageProcessorPil(
        size={"height": 210, "width": 266},
        ensure_multiple_of=14,
        keep_aspect_ratio=resample == 3,
        resample=resample,
        image_mean=[0.4, 0.5, 0.6],
        image_std=[0.2, 0.3, 0.25],
    )
    theirs = processor(image(size), input_data_format=LAST, return_tensors="np")["pixel_values"][0]
    ours = pixels.fitted(image(size), processor.to_dict())
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert ours.dtype == np.float32 and ours.shape[1:] == pixels.fitted_size(
        size, processor.to_dict()
    )


@pytest.mark.parametrize("size", LARGER, ids=str)
@pytest.mark.parametrize("side", [64, 480, 960])
def test_pixels_of_owlv2_are_those_of_transformers(size, side):
    processor = transformers.models.owlv2.image_processing_pil_owlv2.Owlv2ImageProcessorPil(
        size={"height": side, "width": side}
    )
    theirs = processor(image(size), input_data_format=LAST, return_tensors="np")["pixel_values"][0]
    ours = pixels.padded_square(image(size), processor.to_dict())
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert ours.dtype == np.float32 and ours.flags.c_contiguous


def test_a_strip_keeps_one_patch():
    """Where theirs would have none, and fails."""
    settings = dict(size=dict(height=210, width=266), ensure_multiple_of=14, keep_aspect_ratio=True)
    assert pixels.fitted_size((8, 700), settings) == (14, 266)


def test_a_flat_map_is_rejected(depth):
    labeller = DepthAnythingV2(name="d", weights=depth, least_spread=10.0).load("cpu")
    assert outcome(labeller, (60, 91)).reason == "a flat map"


def test_a_saturated_map_is_rejected(depth):
    labeller = DepthAnythingV2(name="d", weights=depth, most_saturated=0.6).load("cpu")
    prepared = labeller.prepare(Sample(key="k", image=image((60, 91)), columns={}))
    for end in (0.0, 1.0):
        values = np.full((10, 20), end, np.float32)
        values[:3] = np.linspace(0, 1, 60).reshape(3, 20)
        assert labeller.finish(prepared, _Map(values)).reason == "a saturated map"
        values[:5] = np.linspace(0, 1, 100).reshape(5, 20)
        assert labeller.finish(prepared, _Map(values)).labels


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_map_is_compared_with_that_of_the_mirror_image(depth, size):
    expert = DepthAnythingV2(name="d", weights=depth, mirror_side=28, least_agreement=-1.0)
    found = outcome(expert.load("cpu"), size).labels
    processor = transformers.AutoImageProcessor.from_pretrained(depth)
    model = transformers.AutoModelForDepthEstimation.from_pretrained(depth).eval()
    inputs = processor(image(size), input_data_format=LAST, return_tensors="pt")["pixel_values"]
    small = [
        max(round(side * 28 / min(inputs.shape[2:]) / 14), 1) * 14 for side in inputs.shape[2:]
    ]
    with torch.inference_mode():
        mirrored = model(
            torch.nn.functional.interpolate(inputs, small, mode="bilinear", antialias=True).flip(-1)
        ).predicted_depth.flip(-1)
        plain = torch.nn.functional.interpolate(
            model(inputs).predicted_depth[None], small, mode="bilinear", antialias=True
        )
    wanted = np.corrcoef(mirrored.flatten(), plain.flatten())[0, 1]
    np.testing.assert_allclose(found["depth_agreement"], [wanted], atol=1e-3)
    strict = DepthAnythingV2(name="d", weights=depth, mirror_side=28, least_agreement=1.01)
    rejected = outcome(strict.load("cpu"), size)
    assert rejected.reason == "the mirror image has another map"
    assert rejected.detail == f"correlation {wanted:.2f}"


def test_a_mirror_image_with_the_same_map_agrees():
    """A network that says where it is bright."""
    labeller = object.__new__(_Depth)
    labeller._torch, labeller._settings = torch, DepthAnythingV2(name="d", mirror_side=28)
    labeller._maps = lambda pixels: 7 - 3 * pixels[:, 0]
    pixels = torch.nn.functional.interpolate(torch.rand(2, 3, 4, 6), (56, 84), mode="bilinear")
    assert min(labeller._agreements(pixels, labeller._maps(pixels))) > 0.999
    opposite = labeller._agreements(pixels, -labeller._maps(pixels))
    assert max(opposite) < -0.999
    turned = labeller._agreements(pixels, labeller._maps(pixels.flip(-1)))
    assert max(turned) < 0.9


@pytest.mark.parametrize("bits", [10, 16])
def test_stored_maps_keep_their_bits(bits):
    values = np.linspace(0, 1, 5000, dtype=np.float32).reshape(50, 100)
    codes = decode.decode_png16(encoded(values, bits))
    np.testing.assert_allclose(codes / codes.max(), values, atol=0.51 / (2**bits - 1))
    assert len(np.unique(codes)) == min(2**bits, 5000) and codes.min() == 0
    assert not (codes & (2 ** (16 - bits) - 1)).any(), "lower bits are zero"


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_boxes_are_those_of_transformers(owl, size):
    """Before suppression; theirs may reach beyond the image, ours are cut, or gone if all is."""
    whole = dict(max_overlap=1.0, max_overlap_unlike=1.0, max_boxes=99, min_side=0.0)
    expert = Owlv2(name="o", weights=owl, **ANY_SCORE, **whole)
    tags = [tag.encode() for tag in TAGS]
    caption = [b"trees beside the house"]
    found = outcome(expert.load("cpu"), size, ram_tags=tags, caption=caption).labels
    processor = transformers.AutoProcessor.from_pretrained(owl)
    model = transformers.Owlv2ForObjectDetection.from_pretrained(owl).eval()
    texts = [[f"a photo of a {tag}" for tag in TAGS]]
    inputs = processor(text=texts, images=image(size), input_data_format=LAST, return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    (theirs,) = processor.post_process_grounded_object_detection(
        outputs, threshold=0.0, target_sizes=[size], text_labels=[TAGS]
    )
    order = np.argsort(-theirs["scores"].numpy(), kind="stable")
    boxes = theirs["boxes"].numpy()[order] / [size[1], size[0], size[1], size[0]]
    inside = (np.diff(np.clip(boxes, 0, 1).reshape(-1, 2, 2), axis=1) > 0).all(axis=(1, 2))
    order, boxes = order[inside], boxes[inside]
    np.testing.assert_allclose(found["scores"], theirs["scores"].numpy()[order], atol=1e-5)
    np.testing.assert_allclose(found["boxes"], np.clip(boxes, 0, 1), atol=1e-5)
    assert found["phrases"] == [theirs["text_labels"][index] for index in order]
    assert 2 <= len(boxes) <= 16 and np.std(found["boxes"]) > 0.05
    assert found["mentioned"].tolist() == [int(phrase == "house") for phrase in found["phrases"]]


def test_limits_of_boxes(owl):
    one = Owlv2(name="o", weights=owl, **ANY_SCORE, max_overlap=0.0, max_boxes=2, min_side=0.0)
    found = outcome(one.load("cpu"), (60, 91), my_tags=[b"house"])
    assert 1 <= len(found.labels["scores"]) <= 2 and found.dropped
    large = Owlv2(name="o", weights=owl, **ANY_SCORE, min_side=2.0)
    none = outcome(large.load("cpu"), (60, 91), my_tags=[b"a"])
    assert none.reason == "no box that is good enough" and none.detail.startswith("best score ")
    assert none.dropped == {"a side below min_side": 16}
    with pytest.raises(Rejected, match="no tags"):
        one.load("cpu").prepare(Sample(key="k", image=image((8, 8)), columns={}))


def test_ram_plus_from_files_of_any_size(tmp_path):
    """A small checkpoint in the published layout; the published size has its own test."""
    files = tiny_experts.ram_plus(tmp_path)
    labeller = RamPlus(name="r", max_tags=3, **files).load("cpu")
    found = outcome(labeller, (60, 91)).labels
    names = pathlib.Path(files["tag_list"]).read_text().split()
    network = labeller._network
    assert [len(stage.blocks) for stage in network.visual_encoder.layers] == [1, 2]
    pixels = torch.from_numpy(ram_plus_files.preprocess(image((60, 91))))[None]
    probabilities = network(pixels).sigmoid()[0].numpy()
    order = np.argsort(-probabilities)[:3]
    assert found["ram_tags"] == [names[index] for index in order]
    np.testing.assert_allclose(found["ram_tag_scores"], probabilities[order], rtol=1e-4)
    network.tags.thresholds[:] = 1.0
    assert outcome(labeller, (60, 91)).reason == "no tag above its threshold"


@pytest.mark.parametrize("expert", [DepthAnythingV2, Owlv2])
def test_weights_that_are_missing_are_one_line(expert, tmp_path):
    settings = expert(name="x", weights=str(tmp_path))
    published = r"huggingface.co/(google/owlv2|depth-anything/Depth).*\((Apache|CC)"
    with pytest.raises(
        UserError, match=rf"no weights of x at .*experts.x.weights .*save_pretrained.*{published}"
    ) as caught:
        settings.load("cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("expert", [DepthAnythingV2, Owlv2])
def test_weights_that_lack_a_part_are_refused(expert, depth, owl, tmp_path):
    """transformers would fill it at random and go on."""
    source = {DepthAnythingV2: depth, Owlv2: owl}[expert]
    folder = pathlib.Path(shutil.copytree(source, tmp_path / "weights"))
    state = safetensors.numpy.load_file(folder / "model.safetensors")
    lacking = sorted(state)[0]
    del state[lacking]
    safetensors.numpy.save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"they lack {lacking}, one of 1"):
        expert(name="x", weights=str(folder)).load("cpu")


def test_weights_of_the_older_format_have_a_digest(owl, tmp_path):
    folder = pathlib.Path(shutil.copytree(owl, tmp_path / "weights"))
    state = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    torch.save(tensors, folder / "pytorch_model.bin")
    digest = Owlv2(name="o", weights=str(folder)).load("cpu").digest
    assert digest == digest_of(folder / "pytorch_model.bin") != digest_of()


@pytest.mark.parametrize(
    ("size", "changes", "message"),
    [
        ("small", {"depth_estimation_type": "metric"}, "gives distances, not disparities"),
        ("small", {"width": 1024}, "is of size large, not small.*--experts d:large"),
    ],
)
def test_weights_that_would_be_mislabelled_are_refused(size, changes, message):
    """The sign of the maps, and the licence of the size that was asked for."""
    backbone = types.SimpleNamespace(hidden_size=changes.get("width", 384))
    kind = changes.get("depth_estimation_type", "relative")
    config = types.SimpleNamespace(depth_estimation_type=kind, backbone_config=backbone)
    with pytest.raises(UserError, match=message):
        _check_kind(DepthAnythingV2(name="d", size=size), config)


def test_a_mirror_image_without_a_map_agrees_with_nothing(depth):
    labeller = DepthAnythingV2(name="d", weights=depth, least_agreement=-1.0).load("cpu")
    prepared = labeller.prepare(Sample(key="k", image=image((60, 91)), columns={}))
    values = np.linspace(0, 1, 200, dtype=np.float32).reshape(10, 20)
    assert labeller.finish(prepared, _Map(values, -1.0)).labels
    assert labeller.finish(prepared, _Map(values, float("nan"))).reason.startswith("the mirror")


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_images_that_exif_turns_are_labelled_upright(depth, owl, orientation):
    """As transformers labels what `ImageOps.exif_transpose` makes of them, JPEG's losses apart."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image((60, 91))).save(buffer, "JPEG", quality=95, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    stored = decode.decode_image(curate(buffer.getvalue(), Limits(min_side=32)).data)
    assert stored.shape == upright.shape

    labeller = DepthAnythingV2(name="d", weights=depth, mirror_side=0).load("cpu")
    prepared = labeller.prepare(Sample(key="k", image=stored, columns={}))
    processor = transformers.AutoImageProcessor.from_pretrained(depth)
    theirs = processor(upright, input_data_format=LAST, return_tensors="np")["pixel_values"][0]
    lying = np.rot90(theirs, {3: 2, 6: 1, 8: -1}[orientation], axes=(1, 2))
    assert np.abs(prepared.pixels - theirs).mean() < 0.1
    assert lying.shape != theirs.shape or np.abs(lying - theirs).mean() > 0.5
    raster = decode.decode_png16(outcome_of(labeller, stored).labels["depth"])
    assert raster.shape == upright.shape[:2]

    labeller = Owlv2(name="o", weights=owl).load("cpu")
    prepared = labeller.prepare(Sample(key="k", image=stored, columns={"my_tags": [b"a"]}))
    processor = transformers.AutoProcessor.from_pretrained(owl).image_processor
    theirs = processor(upright, input_data_format=LAST, return_tensors="np")["pixel_values"][0]
    assert np.abs(prepared.pixels - theirs).mean() < 0.1 and prepared.size == upright.shape[:2]


def test_labels_do_not_depend_on_the_number_of_cores(depth):
    """Ray gives a worker one thread, a machine of its own many."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        DepthAnythingV2(name="d", weights=depth).load("cpu")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
