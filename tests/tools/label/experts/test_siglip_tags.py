# SPDX-License-Identifier: Apache-2.0
"""Tags by a SigLIP-type model: those that its own logits find likely."""

import dataclasses

import numpy as np
import pytest

from mtv_jax.core.errors import UserError
from mtv_jax.interop.save import save_folder
from tests.interop.conftest import export, tokenizer_path  # noqa: F401 - fixtures
from tools.data.depth_values import Rejected
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
    (root / "tags.txt").write_text("\n".join(NAMES) + "\n\n")
    return SiglipTags(
        name="s",
        model=str(root / "model"),
        tags=str(root / "tags.txt"),
        batch_size=2,
        min_score=0.0,
    )


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (40, 50, 3)).astype(np.uint8)


def test_tags_are_ordered_by_the_models_own_probability(expert, model):
    labeller = expert.load("")
    images = [image(0), image(1)]
    found = labeller.label(
        [labeller.prepare(Sample(key="k", image=pixels, columns={})) for pixels in images]
    )
    logits = model.logits(images, [f"a photo of a {name}" for name in NAMES])
    for labels, row in zip(found, 1 / (1 + np.exp(-logits)), strict=True):
        order = np.argsort(-row)
        assert labels["tags"] == [NAMES[index] for index in order]
        np.testing.assert_allclose(labels["tag_scores"], row[order], rtol=1e-3)
    assert len(labeller.digest) == 64


def test_the_least_score_and_the_most_tags(expert):
    few = dataclasses.replace(expert, max_tags=2).load("")
    prepared = few.prepare(Sample(key="k", image=image(0), columns={}))
    (labels, _) = few.label([prepared, prepared])
    assert len(labels["tags"]) == 2 and labels["tag_scores"][0] >= labels["tag_scores"][1]
    none = dataclasses.replace(expert, min_score=1.0).load("")
    (rejected, _) = none.label([prepared, prepared])
    assert isinstance(rejected, Rejected) and rejected.reason == "no tag that is likely enough"


def test_a_list_that_is_missing_is_one_line(expert):
    with pytest.raises(UserError, match=r"experts.s.tags: .*give a file, a tag a line"):
        dataclasses.replace(expert, tags="nowhere.txt").load("")
    with pytest.raises(UserError, match=r"experts.s.max_tags is at most 64"):
        dataclasses.replace(expert, max_tags=65)
