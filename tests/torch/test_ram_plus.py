# SPDX-License-Identifier: Apache-2.0
"""RAM++ against its authors' code: the names of all weights, logits and tags.

`ram_plus_keys.txt` and `ram_plus.npz` name the commit and the command that made them.
"""

import json
import pathlib

import numpy as np
import pytest

from mtv_jax.core.errors import UserError
from tools.golden.ram_plus import (
    KEYS,
    RESULTS,
    SMALL_DECODER,
    SMALL_SWIN,
    SMALL_TAGS,
    made_images,
    made_weights,
)
from tools.label.experts.ram_plus_files import TagList, load_ram_plus

pytestmark = pytest.mark.torch
pytest.importorskip("torch.nn", reason="PyTorch is not installed (make test-torch)")
torch = pytest.importorskip("torch")

from tools.label.experts.ram_plus_network import RamPlus, Shape, tag  # noqa: E402

HERE = pathlib.Path(__file__).parent
SMALL = Shape(**SMALL_SWIN, **SMALL_DECODER)
RECOMPUTED = ("relative_position_index", "attn_mask")


def shapes_of(network):
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def small_state():
    """As the authors' training leaves it, recomputed buffers included."""
    state = made_weights(shapes_of(RamPlus(SMALL_TAGS, SMALL)))
    state["visual_encoder.layers.0.blocks.1.attn_mask"] = np.zeros((64, 144, 144), np.float32)
    state["visual_encoder.layers.0.blocks.1.attn.relative_position_index"] = np.zeros((144, 144))
    return {name: torch.from_numpy(value) for name, value in state.items()}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A user's files of a small RAM++, as arguments of `load_ram_plus`."""
    texts = dict(tags=SMALL_TAGS.names, thresholds=map(str, SMALL_TAGS.thresholds))
    for name, lines in texts.items():
        (tmp_path / name).write_text("\n".join(lines))
    torch.save({"model": small_state(), "epoch": 3}, tmp_path / "weights")
    return {name: tmp_path / name for name in ("weights", "tags", "thresholds")}


def test_names_and_shapes_of_the_published_size_are_theirs():
    _, *lines = (HERE / KEYS).read_text().splitlines()
    theirs = {name: tuple(json.loads(shape)) for name, shape in (x.split("\t") for x in lines)}
    theirs = {name: shape for name, shape in theirs.items() if not name.endswith(RECOMPUTED)}
    names = tuple(map(str, range(4585)))
    with torch.device("meta"):
        network = RamPlus(TagList(names=names, thresholds=np.zeros(4585, np.float32)))
    assert shapes_of(network) == theirs


def test_logits_and_tags_are_theirs(files):
    network = load_ram_plus(**files)
    images = made_images(2)
    with np.load(HERE / RESULTS) as stored:
        logits, above = stored["logits"], stored["above"]
    assert logits.std() > 0.5 and 3 < above.sum() < above.size - 3
    np.testing.assert_allclose(network(torch.from_numpy(images)), logits, atol=1e-4)
    probabilities = 1 / (1 + np.exp(-logits))
    for found, row, expected in zip(tag(network, images), probabilities, above, strict=True):
        assert [name for name, _ in found] == [
            SMALL_TAGS.names[i] for i in np.flatnonzero(expected)
        ]
        np.testing.assert_allclose([p for _, p in found], row[expected], atol=1e-4)


def test_a_probability_equal_to_the_threshold_is_not_above(files):
    network = load_ram_plus(**files)
    image = made_images(1)
    exact = network(torch.from_numpy(image)).sigmoid()[0].numpy()
    network.tags = TagList(names=SMALL_TAGS.names, thresholds=exact)
    assert tag(network, image) == [[]]
    network.tags = TagList(names=SMALL_TAGS.names, thresholds=np.nextafter(exact, np.float32(0)))
    assert len(tag(network, image)[0]) == len(exact)


def test_bfloat16_is_near(files):
    network = load_ram_plus(**files, dtype="bfloat16")
    logits = network(torch.from_numpy(made_images(2)).bfloat16())
    assert logits.dtype == torch.float32
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    with np.load(HERE / RESULTS) as stored:
        difference = np.abs(logits.numpy() - stored["logits"])
    assert 1e-4 < difference.mean() < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("fc.bias"), "fc.bias missing"),
        (lambda state: state.update(other=state["fc.bias"]), "other unexpected"),
        (lambda state: state.update({"fc.bias": torch.zeros(2)}), "fc.bias [2] instead of [1]"),
        (lambda state: [state.pop(name) for name in list(state)[2:]], "and "),
    ],
)
def test_weights_that_do_not_fit_are_one_line(files, change, message):
    state = small_state()
    change(state)
    torch.save({"model": state}, files["weights"])
    with pytest.raises(UserError) as error:
        load_ram_plus(**files)
    assert message in str(error.value) and "huggingface.co" in str(error.value)
    assert len(str(error.value)) < 700 and "\n" not in str(error.value)


def test_an_earlier_name_of_the_decoder_is_known(files):
    state = {k.replace("tagging_head", "vision_multi"): v for k, v in small_state().items()}
    torch.save({"model": state}, files["weights"])
    load_ram_plus(**files)


def test_more_tags_than_the_weights_know(files):
    for name, line in (("tags", "one more"), ("thresholds", "0.5")):
        files[name].write_text(files[name].read_text() + f"\n{line}\n")
    with pytest.raises(UserError, match=r"the 13 tags of .*label_embed \[612, 512\] instead of"):
        load_ram_plus(**files)


@pytest.mark.parametrize("broken", ["text", "cut", "no model", "code"])
def test_a_checkpoint_that_cannot_be_read_is_one_line(files, broken):
    path = files["weights"]
    if broken == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif broken == "cut":
        path.write_bytes(path.read_bytes()[:-300])
    elif broken == "no model":
        torch.save(small_state(), path)
    else:
        torch.save({"model": small_state(), "epoch": pathlib.Path}, path)
    with pytest.raises(UserError, match='weights holds no weights under "model"') as error:
        load_ram_plus(**files)
    assert "\n" not in str(error.value)
