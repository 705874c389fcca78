# SPDX-License-Identifier: Apache-2.0
"""Tags by a SigLIP-type model: those that its own logits find likely."""

import dataclasses

import numpy as np
import pytest

from mtv_jax.core.errors import UserError
from mtv_jax.interop.save import save_folder
from tests.interop.conftest import export, tokenizer_path  # noqa: F401 - fixtures
from tools.label.base import Sample
from tools.label.experts.siglip_tags import SiglipTags

NAMES = ["a cat", "two dogs", "a red house", "snow"]


@pytest.fixture(scope="module")
def model(export):  # noqa: F811
    """In float32,."""
    return dataclasses.replace(export, encoder=dataclasses.replace(export.encoder, dtype="float32"))


@pytest.fixture(scope="module")
def expert(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("siglip")
    save_folder(root / "model", model)
    (root / "tags.txt").write_text("\n".join([*NAMES, NAMES[0]]) + "\n\n")
    return SiglipTags(
        name="s",
        model=str(root / "model"),
        tag_list=str(root / "tags.txt"),
        batch_size=2,
        min_score=0.0,
    )


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (40, 50, 3)).astype(np.uint8)


def outcomes(labeller, images):
    prepared = [labeller.prepare(Sample(key="k", image=one, columns={})) for one in images]
    return [*map(labeller.finish, prepared, labeller.infer(prepared))]


def test_tags_are_ordered_by_the_models_own_probability(expert, model):
    labeller = expert.load("")
    images = [image(0), image(1)]
    found = outcomes(labeller, images)
    logits = model.logits(images, [f"a photo of a {name}" for name in NAMES])
    for outcome, row in zip(found, 1 / (1 + np.exp(-logits)), strict=True):
        order = np.argsort(-row)
        assert outcome.labels["siglip_tags"] == [NAMES[index] for index in order]
        np.testing.assert_allclose(outcome.labels["siglip_tag_scores"], row[order], rtol=1e-3)
    assert len(labeller.digest) == 64


def test_the_least_score_and_the_most_tags(expert):
    (few,) = outcomes(dataclasses.replace(expert, max_tags=2).load(""), [image(0)])
    scores = few.labels["siglip_tag_scores"]
    assert len(few.labels["siglip_tags"]) == 2 and scores[0] >= scores[1]
    (none,) = outcomes(dataclasses.replace(expert, min_score=1.0).load(""), [image(0)])
    assert none.reason == "no tag that is likely enough" and not none.labels


def test_what_is_missing_is_one_line(expert, tmp_path):
    with pytest.raises(UserError, match=r"experts.s.tag_list: .*give a file, a tag a line"):
        dataclasses.replace(expert, tag_list="nowhere.txt").load("")
    (tmp_path / "empty.txt").write_text("\n")
    for changes in ({"tag_list": str(tmp_path / "empty.txt")}, {"prompt": "a photo"}):
        with pytest.raises(UserError, match=r"experts.s: want tags in tag_list.* and {} in prompt"):
            dataclasses.replace(expert, **changes).load("")
    with pytest.raises(UserError, match=r"experts.s.model: give the folder"):
        dataclasses.replace(expert, model="").load("")
    with pytest.raises(UserError, match=r"experts.s.max_tags is at most 64"):
        dataclasses.replace(expert, max_tags=65)
