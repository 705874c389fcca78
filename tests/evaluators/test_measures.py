# SPDX-License-Identifier: Apache-2.0
"""Zero-shot classification and retrieval on features that the test chooses."""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline.eval_data import EvalData
from input_pipeline.eval_set import EvalSet
from input_pipeline.store import finish_store, write_shard
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import CAPTION, Field
from mtv_jax.evaluators.heldout import HeldoutLoss
from mtv_jax.evaluators.retrieval import Retrieval, ranks_of_captions, ranks_of_images
from mtv_jax.evaluators.zeroshot import ZeroShot
from mtv_jax.objectives.base import LossOut

CAPTIONS = ["a cat", "A cat!", "a dog", None, "a bird", "two birds"]
LABELS = [0, 0, 1, 2, 2, 2]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """Six rows; two captions are one after canonicalisation, one is missing."""
    path: pathlib.Path = tmp_path_factory.mktemp("measures")
    rows = [
        {"key": str(i), "class_id": label, **({"caption": text} if text else {})}
        for i, (text, label) in enumerate(zip(CAPTIONS, LABELS, strict=True))
    ]
    write_shard(path, "images", 0, rows)
    classes = ["cat", "dog", "bird"]
    finish_store(
        path, "six", (CAPTION, Field(name="class_id", dtype="int32")), {"classes": classes}
    )
    return str(path)


@dataclasses.dataclass
class Chosen:
    """Stands for a context."""

    images: np.ndarray
    texts: dict[str, list[float]]

    def image_features(self, data: EvalSet) -> np.ndarray:
        return self.images[: len(data)]

    def text_features(self, texts: list[str]) -> np.ndarray:
        return np.asarray([self.texts[text] for text in texts], float)


def test_zeroshot_counts_the_nearest_class(store):
    texts = {"cat": [1, 0, 0], "dog": [0, 1, 0], "bird": [0, 0, 1]}
    images = np.asarray([[1, 0, 0], [0.2, 1, 0], [0, 1, 0], [0, 0.1, 1], [1, 0, 0.1], [0, 0, 1]])
    numbers = ZeroShot(name="z", data=EvalSet(store=store), prompts=("{}",)).run(
        Chosen(images, texts)
    )
    assert numbers["top1"] == pytest.approx(4 / 6) and numbers["top1/chance"] == pytest.approx(
        1 / 3
    )
    assert numbers["top5"] == 1.0 and numbers["top5/chance"] == 1.0
    assert (numbers["classes"], numbers["images"]) == (3, 6)


def test_zeroshot_averages_unit_prompts_and_renormalises(store):
    """One class's prompts disagree: its mean is short, and must not lose for that."""
    texts = {"cat": [1, 0, 0], "a cat": [0, 1, 0], "dog": [0.6, 0, 0.8], "a dog": [0.6, 0, 0.8]}
    texts |= {"bird": [0, 0, -1], "a bird": [0, 0, -1]}
    images = np.tile([0.5, 0.5, 0.0], (6, 1))
    evaluator = ZeroShot(name="z", data=EvalSet(store=store), prompts=("{}", "A {}!"))
    scores = evaluator.scores(Chosen(images, texts))
    np.testing.assert_allclose(scores[0], [0.5 * 2**0.5, 0.3, 0.0], atol=1e-12)


def test_a_tie_goes_to_the_lower_class(store):
    texts = {name: [1, 0, 0] for name in ("cat", "dog", "bird")}
    numbers = ZeroShot(name="z", data=EvalSet(store=store), prompts=("{}",)).run(
        Chosen(np.eye(6, 3), texts)
    )
    assert numbers["top1"] == pytest.approx(2 / 6)


def test_the_gallery_has_distinct_captions(store):
    data = EvalSet(store=store)
    rows, captions, owners = Retrieval(name="r", data=data).searched()
    assert rows == [0, 2, 4, 5] and captions == ["a cat", "a dog", "a bird", "two birds"]
    assert owners.tolist() == [0, 1, 2, 3]
    assert Retrieval(name="r", data=data, gallery=2).searched().rows == [0, 2]
    with pytest.raises(UserError, match="4 distinct captions, fewer than the gallery of 5"):
        Retrieval(name="r", data=data, gallery=5).searched()
    repeated = Retrieval(name="r", data=data, distinct=False).searched()
    assert repeated.rows == [0, 1, 2, 4, 5] and repeated.captions[:2] == ["a cat", "a cat"]


def test_retrieval_counts_ranks_in_both_directions(store):
    texts = {"a cat": [1, 0, 0, 0], "a dog": [0, 1, 0, 0], "a bird": [0, 0, 1, 0]}
    texts["two birds"] = [0, 0, 0, 1]
    images = np.zeros((6, 4))
    images[0], images[2] = [1, 0, 0, 0], [0.9, 0.5, 0, 0]  # the dog looks like the cat
    images[4], images[5] = [0, 0, 1, 0], [0, 0, 0, 1]
    numbers = Retrieval(name="r", data=EvalSet(store=store)).run(Chosen(images, texts))
    assert numbers["i2t_r1"] == 0.75 and numbers["t2i_r1"] == 1.0
    assert numbers["i2t_r5"] == 1.0 and numbers["gallery"] == 4
    assert numbers["i2t_r1/chance"] == 0.25 and numbers["i2t_r5/chance"] == 1.0


def test_what_cannot_be_measured_fails_before_the_run(store, tmp_path):
    Retrieval(name="r", data=EvalSet(store=store), gallery=4).check(())
    with pytest.raises(UserError, match="fewer than the gallery of 5"):
        Retrieval(name="r", data=EvalSet(store=store), gallery=5).check(())
    rows = [{"key": "0", "class_id": 1}, {"key": "1"}]
    write_shard(tmp_path, "images", 0, rows)
    finish_store(tmp_path, "gap", (Field(name="class_id", dtype="int32"),), {"classes": ["a", "b"]})
    with pytest.raises(UserError, match=r"1 images of the store .* have no class_id"):
        ZeroShot(name="z", data=EvalSet(store=str(tmp_path))).check(())
    with pytest.raises(UserError, match="the store /nowhere is not there"):
        HeldoutLoss(name="h", data=EvalSet(store="/nowhere")).check(())
    HeldoutLoss(name="h", data=EvalSet(store=store)).check(["caption"])
    with pytest.raises(UserError, match="has no column 'depth'"):
        HeldoutLoss(name="h", data=EvalSet(store=store)).check(["caption", "depth"])


def test_ties_count_against_the_query():
    own = np.arange(3)
    for ranks in (ranks_of_images, ranks_of_captions):
        np.testing.assert_array_equal(ranks(np.ones((3, 3)), own), [2, 2, 2])
        np.testing.assert_array_equal(ranks(np.eye(3), own), [0, 0, 0])
        np.testing.assert_array_equal(ranks(np.full((3, 3), np.nan), own), [2, 2, 2])


def test_any_of_an_images_captions_is_a_hit():
    """Two images of two and one captions; image 0 finds its second, which ties with image 1's."""
    owners = np.asarray([0, 0, 1])
    scores = np.asarray([[0.1, 0.9, 0.5], [0.2, 0.3, 0.3]])
    assert ranks_of_images(scores, owners).tolist() == [0, 1]
    assert ranks_of_captions(scores, owners).tolist() == [1, 0, 1]
    same = np.asarray([[0.9, 0.9, 0.5], [0.1, 0.1, 0.2]])
    assert ranks_of_images(same, owners).tolist() == [0, 0], "its own two tie, and both are right"


@dataclasses.dataclass(frozen=True)
class FiveCaptions(EvalData):
    """Three images; the second has one caption only, the third repeats one of the first."""

    def open(self) -> None: ...

    def __len__(self) -> int:
        return 3

    def image(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def captions(self) -> list[tuple[str, ...]]:
        return [("a", "b", "c"), ("d",), ("B", "e")]


def test_several_captions_an_image():
    evaluator = Retrieval(name="r", data=FiveCaptions(), captions=2, distinct=False)
    assert evaluator.searched().captions == ["a", "b", "d", "b", "e"]
    assert evaluator.searched().owners.tolist() == [0, 0, 1, 2, 2]
    distinct = dataclasses.replace(evaluator, distinct=True).searched()
    assert distinct.rows == [0, 1]
    texts = {"a": [1, 0], "b": [0, 1], "d": [-1, 0], "e": [0.6, 0.8]}
    images = np.asarray([[1, 0.1], [-1, 0], [0.1, 1]])
    numbers = evaluator.run(Chosen(images, texts))
    assert (numbers["gallery"], numbers["captions"]) == (3, 5)
    # Image 2's best caption "b" is image 0's too, word for word: a tie, and no hit.
    assert numbers["i2t_r1"] == pytest.approx(2 / 3) and numbers["i2t_r5"] == 1.0
    # "b" of image 0 is nearer to image 2; the others find their own.
    assert numbers["t2i_r1"] == pytest.approx(4 / 5)
    assert numbers["i2t_r1/chance"] == pytest.approx((2 / 5 + 1 / 5 + 2 / 5) / 3)
    assert numbers["t2i_r1/chance"] == pytest.approx(1 / 3)


def test_features_that_are_not_finite_hit_nothing(store):
    texts = {"cat": [1, 0, 0], "dog": [0, 1, 0], "bird": [0, 0, 1]}
    numbers = ZeroShot(name="z", data=EvalSet(store=store), prompts=("{}",)).run(
        Chosen(np.full((6, 3), np.nan), texts)
    )
    assert numbers["top1"] == numbers["top5"] == 0.0


@dataclasses.dataclass
class Batches:
    """Stands for a context and its model; the losses are 1, 2, 3, …"""

    asked: list = dataclasses.field(default_factory=list)

    @property
    def model(self) -> "Batches":
        return self

    def losses(self, data: EvalSet, count: int):
        self.asked.append((data, count))
        for value in range(1, count + 1):
            out = LossOut(loss=jnp.float32(value), metrics={"blind_loss": jnp.float32(5)})
            yield {"vl": out, "other": LossOut(loss=jnp.float32(10 * value))}

    def poll(self) -> None: ...


def test_heldout_averages_batches_of_its_selection():
    ctx = Batches()
    evaluator = HeldoutLoss(name="h", data=EvalSet(store="s", selection="heldout"), batches=3)
    assert evaluator.run(ctx) == {"vl": 2.0, "vl/chance": 5.0, "other": 20.0}
    assert ctx.asked == [(EvalSet(store="s", selection="heldout"), 3)]
