# SPDX-License-Identifier: Apache-2.0
"""Votes of neighbours on features that the test chooses, on any number of devices."""

import dataclasses

import jax
import numpy as np
import pytest

from input_pipeline.eval_set import EvalSet
from input_pipeline.store import finish_store, write_shard
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import Field
from mtv_jax.dist.mesh import MeshConfig, make_mesh
from mtv_jax.dist.nearest import nearest
from mtv_jax.evaluators.knn import Knn

LABELS = {"voters": [2, 2, 0, 1, 1, 0, 2], "asked": [2, 0, 1]}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two labelled stores; an image is whatever the test says."""
    root = tmp_path_factory.mktemp("knn")
    for name, labels in LABELS.items():
        rows = [{"key": str(i), "class_id": label} for i, label in enumerate(labels)]
        write_shard(root / name, "images", 0, rows)
        finish_store(root / name, name, (Field(name="class_id", dtype="int32"),), {})
    return root


def mesh_of(devices):
    return make_mesh(MeshConfig(), jax.devices()[:devices])


@dataclasses.dataclass
class Chosen:
    """Stands for a context."""

    features: dict[str, np.ndarray]
    devices: int = 1

    @property
    def mesh(self):
        return mesh_of(self.devices)

    def image_features(self, data: EvalSet) -> np.ndarray:
        return self.features[data.store.rsplit("/", 1)[1]]


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


VOTERS = unit([[1, 0], [0.9, 0.1], [0, 1], [-1, 0.1], [-1, 0], [0.1, 1], [0.8, 0.3]])


def knn(stores, **kwargs):
    train = EvalSet(store=str(stores / "voters"))
    return Knn(name="knn", data=EvalSet(store=str(stores / "asked")), train=train, **kwargs)


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_neighbours_vote(stores, devices):
    asked = unit([[1, 0.05], [0.05, 1], [1, 0]])  # the last is labelled 1, and near no 1
    ctx = Chosen({"voters": VOTERS, "asked": asked}, devices)
    numbers = knn(stores, neighbours=(1, 3)).run(ctx)
    assert numbers["top1_k1"] == pytest.approx(2 / 3)
    assert numbers["top1_k3"] == pytest.approx(2 / 3)
    assert numbers["top1_k3/chance"] == pytest.approx(1 / 3)  # always class 2
    assert (numbers["images"], numbers["voters"]) == (3, 7)


def test_a_vote_counts_by_its_cosine(stores):
    """Two neighbours at 0.5 and 0.4 against one at 0.6: exp(s / T) decides, not the number."""
    scores, labels = np.asarray([[0.6, 0.5, 0.4]]), np.asarray([[1, 0, 0]])
    cold = knn(stores, temperature=0.07).votes(scores, labels)
    np.testing.assert_allclose(cold[0, 0] / cold[0, 1], np.exp(-0.1 / 0.07) + np.exp(-0.2 / 0.07))
    assert cold.argmax() == 1
    assert knn(stores, temperature=1.0).votes(scores, labels).argmax() == 0


def test_a_feature_that_is_not_finite_is_wrong(stores):
    asked = np.full((3, 2), np.nan, np.float32)
    numbers = knn(stores, neighbours=(7,)).run(Chosen({"voters": VOTERS, "asked": asked}))
    assert numbers["top1_k7"] == 0.0


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_the_nearest_rows_of_a_split_bank(devices):
    """Against a full sort; 45 rows do not divide over the devices, and some are equal."""
    rng = np.random.default_rng(0)
    bank = rng.integers(-2, 3, (45, 4)).astype(np.float32)
    queries = rng.integers(-2, 3, (7, 4)).astype(np.float32)
    scores = queries @ bank.T
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :9]
    found = nearest(mesh_of(devices), queries, bank, 9)
    np.testing.assert_array_equal(found.rows, expected)
    np.testing.assert_array_equal(found.scores, np.take_along_axis(scores, expected, axis=1))


def test_queries_come_in_blocks(monkeypatch):
    monkeypatch.setattr("mtv_jax.dist.nearest._QUERIES", 4)
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(20, 3)), rng.normal(size=(10, 3))
    found = nearest(mesh_of(2), queries, bank, 1)
    np.testing.assert_array_equal(found.rows[:, 0], (queries @ bank.T).argmax(axis=1))


def test_too_few_voters_are_said_before_the_run(stores):
    knn(stores, neighbours=(7,)).check(())
    with pytest.raises(UserError, match=r"has 7 images, fewer than the 8 neighbours .*evals\.knn"):
        knn(stores, neighbours=(8,)).check(())
