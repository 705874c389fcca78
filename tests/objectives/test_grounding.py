# SPDX-License-Identifier: Apache-2.0
"""Tests of mtv_jax.objectives.grounding: which regions, against which phrases, at what loss."""

import copy
import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.core import rng
from mtv_jax.core.fields import BOXES, IMAGE, PHRASES, SCORES
from mtv_jax.core.passes import Features, ImageView
from mtv_jax.dist.mesh import MeshConfig, make_mesh, put_batch
from mtv_jax.nn.contrast import blind_loss, normalize
from mtv_jax.objectives.base import Context, Outputs
from mtv_jax.objectives.grounding import Grounding, box_iou, grounding_rows
from mtv_jax.views.batch import BatchSpec, open_batch
from tests.arch.systems import BATCH, assert_gradients_close, evaluate, tiny_batch, tiny_model

SCALARS = {"logit_scale": jnp.log(10.0), "logit_bias": jnp.asarray(-10.0)}
WHOLE = BatchSpec(
    views=(ImageView(name="global_crop", size=64, area=(1.0, 1.0), ratio=(1.0, 1.0)),),
    fields=(IMAGE, BOXES, PHRASES),
    patch_size=16,
)


def _unit(*shape: int, seed: int = 0) -> jax.Array:
    return normalize(jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32))


def _raw(boxes, phrases, samples: int = 64) -> dict:
    """The same boxes in every sample."""
    rows = np.zeros((samples, 20, 4), np.float32)
    rows[:, : len(boxes)] = np.reshape(boxes, (-1, 4))
    ids = np.full((samples, 20), -1, np.int32)
    ids[:, : len(phrases)] = phrases
    raw = {
        "image": np.zeros((samples, 8, 8, 3), np.uint8),
        "boxes": rows,
        "phrases": ids,
        "image_size": np.full((samples, 2), 8, np.int32),
        "position": np.stack([np.zeros(samples), np.arange(samples)], -1).astype(np.uint32),
        "record_id": np.zeros((samples, 3), np.int32),
        "valid": {k: np.ones(samples, bool) for k in ("image", "boxes", "phrases")},
    }
    return jax.tree.map(jnp.asarray, raw)


def _regions(boxes, phrases, *, spec: BatchSpec = WHOLE, raw=None, **settings):
    objective = Grounding(name="grounding", num_heads=2, mlp_dim=8, **settings)
    batch = open_batch(raw or _raw(boxes, phrases), seed=0, spec=spec)
    regions = objective.regions(batch, rng.named(batch.keys, "grounding"))
    return jax.tree.map(np.asarray, vars(regions))


def _pairs(regions: dict, phrases: dict, scalars: dict, chunk: int = 512) -> jax.Array:
    values = grounding_rows(regions=regions, phrases=phrases, scalars=scalars, chunk=chunk)
    return jnp.mean(values["loss"])


def _masked_pairs(vector, text, phrase, scale: float, bias: float) -> float:
    """Equation 1 over all pairs of regions, those of one phrase ignored, in float64."""
    vector, text = np.asarray(vector, np.float64), np.asarray(text, np.float64)
    logits = np.exp(scale) * vector @ text[phrase].T + bias
    positive = np.log1p(np.exp(-np.diag(logits)))
    negative = np.where(phrase[:, None] != phrase, np.log1p(np.exp(logits)), 0.0)
    return float((positive + negative.sum(axis=1)).mean())


@pytest.mark.parametrize("chunk", [4, 512])
def test_13_distinct_phrases_equal_all_pairs_of_regions(chunk):
    phrase = np.array([0, 3, 3, 1, 0, 3, 4, 1, 6, 3])
    vector, text = _unit(10, 8), _unit(7, 8, seed=1)
    counts = np.bincount(phrase, minlength=7).astype(np.float32)
    phrases = {"text": text, "phrase": jnp.arange(7), "count": jnp.asarray(counts)}
    regions = {"vector": vector, "phrase": jnp.asarray(phrase)}
    scalars = {"logit_scale": jnp.log(5.0), "logit_bias": jnp.asarray(-2.0)}
    expected = _masked_pairs(vector, text, phrase, math.log(5.0), -2.0)
    np.testing.assert_allclose(_pairs(regions, phrases, scalars, chunk), expected, rtol=1e-6)
    # One encoding for every region: the phrases are there several times.
    own = {"text": text[phrase], "phrase": jnp.asarray(phrase), "count": jnp.ones(10)}
    np.testing.assert_allclose(_pairs(regions, own, scalars, chunk), expected, rtol=1e-6)


def test_initial_loss_without_duplicates():
    """16,384 regions, each with a phrase of its own and at right angles to all: 10.744."""
    count, half = 16_384, jnp.zeros((1, 8))
    phrases = {
        "text": jnp.concatenate([_unit(count, 8, seed=1), half.repeat(count, 0)], axis=-1),
        "phrase": jnp.arange(count),
        "count": jnp.ones(count),
    }
    vector = jnp.concatenate([half.repeat(64, 0), _unit(64, 8)], axis=-1)
    loss = _pairs({"vector": vector, "phrase": jnp.arange(64)}, phrases, SCALARS)
    expected = math.log1p(math.exp(10)) + (count - 1) * math.log1p(math.exp(-10))
    assert abs(expected - 10.744) < 5e-4
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("other", ["grounding_unique", "grounding_per_region"])
def test_which_phrases_are_encoded_does_not_change_the_loss(other):
    """The whole vocabulary, the distinct phrases of the batch, or one for every region."""
    batch = tiny_batch(tiny_model(("grounding",)))
    batch["phrases"] = batch["phrases"] % 9
    whole, some = evaluate(("grounding",), batch), evaluate((other,), batch)
    np.testing.assert_allclose(whole.losses["grounding"], some.losses["grounding"], rtol=1e-6)
    assert_gradients_close(whole.grads, some.grads)


def test_17_no_valid_region_is_no_loss():
    name = "grounding"
    batch = copy.deepcopy(tiny_batch(tiny_model((name,))))
    batch["boxes"][:] = 0.5  # empty boxes; images are there
    out = evaluate((name,), batch)
    assert float(out.losses[name]) == 0.0
    chex.assert_tree_all_finite(out.grads)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(out.grads)) == 0.0


def test_18_phrases_are_pooled_at_the_captions_slot():
    """Ids of a phrase of 4 sit at positions 0, 1, 2 and 7, where captions of 8 are pooled."""
    text = evaluate(("grounding",)).grads["backbone"]["text"]["pos_embed"]
    used = np.abs(np.asarray(text)).max(axis=(0, 2)) > 0
    np.testing.assert_array_equal(used, [True, True, True, False, False, False, False, True])


def test_16_boxes_come_out_where_the_crop_shows_them():
    """A crop's own corners as a box: all of the view, mirrored or not."""
    view = ImageView(name="global_crop", size=64, area=(0.3, 0.6), flip=0.5)
    spec = BatchSpec(views=(view,), fields=WHOLE.fields, patch_size=16)
    raw = _raw([], [])
    window = open_batch(raw, seed=0, spec=spec).windows["global_crop"]
    assert 0 < int(window.flip.sum()) < 64
    left, middle = window.start, window.start + window.extent * jnp.array([0.5, 1.0])
    raw["boxes"] = raw["boxes"].at[:, 0].set(jnp.concatenate([left, middle], axis=-1))
    raw["phrases"] = raw["phrases"].at[:, 0].set(5)
    regions = _regions([], [], spec=spec, raw=raw)
    assert regions["valid"][:, 0].all() and not regions["valid"][:, 1:].any()
    half = np.where(np.asarray(window.flip)[:, None], [0.5, 0, 1, 1], [0, 0, 0.5, 1])
    np.testing.assert_allclose(regions["boxes"][:, 0], half, atol=1e-5)


def _box(x: float, y: float, side: float = 0.2) -> list[float]:
    return [x, y, x + side, y + side]


def test_regions_are_drawn_without_replacement_and_all_alike():
    boxes = [_box(0.3 * (k % 3), 0.3 * (k // 3)) for k in range(6)]
    regions = _regions(boxes, [0, 1, 2, 3, 4, 5])
    assert regions["valid"].all()
    assert all(len(set(row)) == 4 for row in regions["phrase"].tolist())
    often = np.bincount(regions["phrase"].ravel(), minlength=6) / 64
    assert often.min() > 0.45 and often.max() < 0.9  # 4 of 6


def test_phrases_that_are_not_drawn_yet_come_first():
    boxes = [_box(0.3 * (k % 3), 0.3 * (k // 3)) for k in range(6)]
    regions = _regions(boxes, [0, 0, 0, 0, 1, 2])
    assert all({0, 1, 2} == set(row) for row in regions["phrase"].tolist())
    assert regions["valid"].all()  # the fourth repeats one


def test_overlapping_boxes_are_not_both_drawn():
    """They may carry two names of one thing."""
    regions = _regions([_box(0.1, 0.1), _box(0.11, 0.1), _box(0.6, 0.6)], [0, 1, 2])
    assert (regions["valid"].sum(axis=1) == 2).all()
    assert {tuple(sorted(row[:2])) for row in regions["phrase"].tolist()} == {(0, 2), (1, 2)}


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        (_box(0.4, 0.4, 0.13), True),
        (_box(0.4, 0.4, 0.12), False),  # 7.7 of 64 pixels
        ([0.9, 0.2, 1.15, 0.6], False),  # 40 % of it inside
        ([0.85, 0.2, 1.1, 0.6], True),  # 60 %
    ],
)
def test_what_the_crop_leaves_too_little_of_is_no_region(box, kept):
    regions = _regions([box], [0])
    assert regions["valid"][:, 0].all() == kept
    assert regions["valid"].any() == kept
    assert regions["boxes"].min() >= 0 and regions["boxes"].max() <= 1


def test_unknown_phrases_and_padding_are_no_regions():
    regions = _regions([_box(0.1, 0.1), _box(0.6, 0.6)], [-1, 3])
    np.testing.assert_array_equal(regions["valid"], [[True, False, False, False]] * 64)
    assert (regions["phrase"][:, 0] == 3).all()


def test_regions_of_a_low_score_are_not_drawn():
    """Those of a sample without scores neither; by default scores are not read."""
    boxes, phrases = [_box(0.1, 0.1), _box(0.6, 0.6)], [2, 3]
    raw = _raw(boxes, phrases)
    scores = np.zeros((64, 20), np.float32)
    scores[:, :2] = 0.2, 0.35
    raw["scores"] = jnp.asarray(scores).at[0].set(jnp.nan)
    raw["valid"]["scores"] = jnp.arange(64) > 0
    spec = dataclasses.replace(WHOLE, fields=(*WHOLE.fields, SCORES))
    regions = _regions(boxes, phrases, spec=spec, raw=raw, least_score=0.3)
    assert not regions["valid"][0].any()
    np.testing.assert_array_equal(regions["valid"][1:], [[True, False, False, False]] * 63)
    assert (regions["phrase"][1:, 0] == 3).all()
    assert _regions(boxes, phrases)["valid"].sum(axis=1).tolist() == [2] * 64
    assert SCORES in Grounding(name="g", least_score=0.3).fields()
    assert SCORES not in Grounding(name="g").fields()


def test_overflow_drops_the_rarest_phrases_and_is_counted():
    """Three phrases with 3, 2 and 1 regions, room for two."""
    objective = Grounding(name="grounding", num_heads=2, mlp_dim=8, texts="unique", max_phrases=2)
    phrase = jnp.array([[9, 4, 9, 0], [7, 9, 4, 0]])
    valid = jnp.array([[True, True, True, False], [True, True, True, False]])
    columns = objective._columns(phrase, valid, 10)
    kept = {int(p): float(n) for p, n in zip(columns["phrase"], columns["count"], strict=True)}
    assert kept == {9: 3, 4: 2}
    regions = {"vector": _unit(8, 4), "phrase": phrase.reshape(-1)}
    phrases = {"text": _unit(2, 4, seed=1), **columns}
    found = grounding_rows(regions=regions, phrases=phrases, scalars=SCALARS, chunk=8)["found"]
    np.testing.assert_array_equal(found.reshape(2, 4)[:, :3], [[True] * 3, [False, True, True]])


@pytest.mark.parametrize("max_phrases", [2, 6])
def test_loss_and_metrics_of_a_batch(max_phrases):
    """From what `project` hands over to the number, against all pairs in float64.

    Room for two of three phrases: regions of the rarest are dropped, and counted.
    """
    objective = Grounding(name="g", num_heads=2, mlp_dim=8, texts="unique", max_phrases=max_phrases)
    phrase = np.array([[9, 4, 9, 0], [7, 9, 4, 0], [0, 0, 0, 0]])
    drawn = np.array([[True, True, True, False], [True, True, True, False], [False] * 4])
    vector, vocabulary = _unit(3, 4, 8), 3.0 * _unit(10, 8, seed=1)  # texts come as they are
    columns = objective._columns(jnp.asarray(phrase), jnp.asarray(drawn), 10)
    texts = vocabulary[jnp.maximum(columns["phrase"], 0)]
    rows = {"vector": vector, "phrase": phrase, "valid": drawn, "image": np.array([True] * 3)}
    ctx = Context(
        student={"grounding_logits": lambda: SCALARS},
        ema={},
        feats={objective.text_pass.id: Features(pooled=texts)},
        batch=None,  # type: ignore[arg-type] - not read
        slots={},
        step=jnp.zeros(()),
        progress=jnp.zeros(()),
    )
    out = objective.loss(Outputs(rows=jax.tree.map(jnp.asarray, rows)), ctx)
    kept = drawn & ((phrase != 7) | (max_phrases > 2))
    unit = np.asarray(vocabulary) / 3.0
    expected = _masked_pairs(np.asarray(vector)[kept], unit, phrase[kept], math.log(10), -10)
    np.testing.assert_allclose(out.loss, expected, rtol=1e-5)
    assert float(out.metrics["overflow"]) == (1 if max_phrases == 2 else 0)
    np.testing.assert_allclose(out.metrics["no_region_share"], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(out.metrics["regions"], 2.0)


@pytest.mark.parametrize("name", ["grounding_unique", "grounding_per_region"])
def test_texts_of_the_batch_on_eight_devices(name):
    one, mesh = evaluate((name,)), make_mesh(MeshConfig())
    with jax.set_mesh(mesh):
        eight = evaluate((name,), put_batch(mesh, BATCH, tiny_batch(tiny_model((name,)))))
    chex.assert_trees_all_close(one.losses, eight.losses, rtol=1e-5)
    assert_gradients_close(one.grads, jax.device_get(eight.grads))


def test_bias_alone_reaches_the_blind_loss():
    """Of 8 texts one is right: the best of many biases, and what the metric says."""
    biases = np.linspace(-5, 1, 6001)
    best = (np.log1p(np.exp(-biases)) + 7 * np.log1p(np.exp(biases))).min()
    np.testing.assert_allclose(blind_loss(jnp.asarray(8.0)), best, rtol=1e-6)


def test_box_iou():
    boxes = jnp.array([[0, 0, 2, 2], [1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 5, 5]], jnp.float32)
    expected = [[1, 1 / 7, 1, 0], [1 / 7, 1, 1 / 7, 0], [1, 1 / 7, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(box_iou(boxes), expected, rtol=1e-6)
