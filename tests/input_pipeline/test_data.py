# SPDX-License-Identifier: Apache-2.0
"""A mixture as a config names it."""

import collections
import itertools

import numpy as np
import pytest

from input_pipeline.data import Data
from input_pipeline.loader import InputConfig, LocalRows
from input_pipeline.store import Store
from input_pipeline.tokenizer import Tokenizer
from mtv_jax.core import config as cfg
from mtv_jax.core.fields import CAPTION, IMAGE
from tests.integration.helpers import tiny_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_world(tmp_path_factory.mktemp("data"))


def _batches(world, weights, count):
    """Batches of 20 from the stores `train` (96 rows) and `test` (32)."""
    stores = {
        name: {"path": str(world / name), "weight": weight} for name, weight in weights.items()
    }
    data = Data(
        config=cfg.build(InputConfig, {"stores": stores, "workers": 0}, "input"),
        fields=(IMAGE, CAPTION),
        canvas=16,
        tokenizer=Tokenizer(str(world / "tokenizer.model"), 8),
        seed=0,
    )
    local = LocalRows(batch_size=20, rows=np.arange(20))
    return list(itertools.islice(data.batches(local, first=0), count))


@pytest.mark.parametrize("weights", [(3.0, 1.0), (0.25, 0.75), (1, 1)])
def test_stores_are_drawn_in_the_shares_that_a_config_gives(world, weights):
    batches = _batches(world, dict(zip(("train", "test"), weights, strict=True)), 8)
    shares = np.asarray(weights) / sum(weights)
    for batch in batches:
        drawn = collections.Counter(batch["record_id"][:, 0].tolist())
        assert abs(drawn[0] - 20 * shares[0]) <= 1, "every batch has about its share"
    ids = np.concatenate([batch["record_id"] for batch in batches])
    assert np.bincount(ids[:, 0], minlength=2).tolist() == (160 * shares).tolist()
    for number, name in enumerate(("train", "test")):
        rows = Store.open(world / name).num_rows
        drawn = [tuple(row) for row in ids[ids[:, 0] == number].tolist()]
        assert len(set(drawn[:rows])) == min(rows, len(drawn)), "each store in epochs of its own"


def test_a_store_of_weight_zero_is_not_drawn(world):
    (batch,) = _batches(world, {"train": 1.0, "test": 0.0}, 1)
    assert set(batch["record_id"][:, 0].tolist()) == {0}
