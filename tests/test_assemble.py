# SPDX-License-Identifier: Apache-2.0
"""What only shows when the parts of a config are together."""

import re

import chex
import jax
import numpy as np
import pytest

from input_pipeline.eval_set import EvalSet
from input_pipeline.store import Store
from input_pipeline.tokenizer import Tokenizer
from mtv_jax.assemble import System
from mtv_jax.core.errors import UserError
from tests.integration.helpers import tiny_store
from tests.tools.tiny import tiny_config

MIXTURE = {"type": "tests.arch.probes:MixtureProbe", "group_size": 8}
SECOND = {"type": "mtv_jax.core.passes:ImageView", "size": 16}


def _changed(world, **changes):
    config = tiny_config(world)
    config["mesh"] = {"data": 8, "fsdp": 1}
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = config
        for name in parents:
            section = section[name]
        section[last] = value
    return config


def test_the_tiny_config_is_a_system(world):
    assert System(_changed(world)).canvas == 32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views__caption__field": "captoin"}, "views.caption.field is 'captoin', which"),
        ({"views__caption__field": "captoin"}, 'did you mean "caption"'),
        ({"views__global_crop__size": 17}, "size 17 is not a multiple of the patch size 8"),
        ({"views__caption__pooling_slot": 3}, "set them alike"),
        ({"input__text_length": 7}, "input.text_length is 7"),
        ({"objectives__sigmoid_vl__text_view": "text"}, "add views.text"),
        ({"micro_batches": 3}, "does not divide the 2 samples per device"),
        ({"batch_size": 12}, "batch_size 12 does not divide over 8 devices"),
        (
            {"objectives__mixture": MIXTURE, "views__second": SECOND},
            "groups of 8, which do not divide the 2 samples",
        ),
        ({"objectives": {}}, "the config has no objectives"),
    ],
)
def test_what_does_not_fit_is_one_line(world, changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        System(_changed(world, **changes), trusted=("tests",))


def _grounding(world) -> System:
    return System(tiny_config(world, "vl+ground"), devices=jax.devices()[:1])


def test_the_vocabulary_of_the_stores_is_an_argument_of_the_step(world):
    """Before data is opened, of a nominal size."""
    system = _grounding(world)
    assert system.frozen["tables"]["region_phrases"].shape == (4585, 8)
    system.open_data()
    phrases = sorted(Store.open(world / "train", ["regions_v1"]).vocabulary("phrases"))
    ids = np.asarray(system.frozen["tables"]["region_phrases"])
    expected = [Tokenizer(str(world / "tokenizer.model"), 8).encode(phrase) for phrase in phrases]
    np.testing.assert_array_equal(ids, expected)
    assert "tables" not in System(tiny_config(world, "vl")).frozen


def test_batches_hold_indices_of_that_vocabulary(world):
    system = _grounding(world)
    batch = next(system.batches(0))
    store = Store.open(world / "train", ["regions_v1"])
    row = np.flatnonzero(batch["valid"]["phrases"])[0]
    _, shard, number = batch["record_id"][row]
    said = store.read(int(shard), int(number), ["phrases"])["phrases"][0].decode()
    assert sorted(store.vocabulary("phrases"))[batch["phrases"][row, 0]] == said
    assert (batch["phrases"][row, 1:] == -1).all()


def test_held_out_phrases_need_not_be_those_of_training(world, tmp_path):
    """Trained on two rows, which know two phrases: the held-out store reads its own."""
    tiny_store(tmp_path / "train", rows=2, shards=1)
    assert len(Store.open(tmp_path / "train", ["regions_v1"]).vocabulary("phrases")) <= 2
    data = EvalSet(store=str(world / "test"), sidecars=("regions_v1",))

    def heldout(train):
        config = tiny_config(world, "vl+ground")
        config["input"]["stores"]["train"]["path"] = str(train)
        system = System(config, devices=jax.devices()[:1])
        (losses,) = system.heldout_losses(system.init_state(), data, 1)
        return {"loss": losses["grounding"].loss, **losses["grounding"].metrics}

    few, many = heldout(tmp_path / "train"), heldout(world / "train")
    assert float(few["regions"]) > 0.1 and float(few["overflow"]) == 0
    chex.assert_trees_all_close(few, many, rtol=1e-5)


def test_losses_with_a_strange_teacher_come_along(world):
    """For objectives that have a teacher, and for no others."""
    system = System(tiny_config(world, "vl+ssl"), devices=jax.devices()[:1])
    data = EvalSet(store=str(world / "test"), sidecars=())
    (losses,) = system.heldout_losses(system.init_state(), data, 1)
    strange = {name for name, out in losses.items() if "strange_loss" in out.metrics}
    assert strange == {"self_distill", "masked_pred"}
    for name in strange:
        own, other = losses[name].loss, losses[name].metrics["strange_loss"]
        assert abs(float(own) - float(other)) > 1e-5, "the teacher's image is another one"


def test_a_store_without_phrases_cannot_be_grounded(world, tmp_path):
    tiny_store(tmp_path / "train", rows=2, shards=1)
    (tmp_path / "train" / "regions_v1.phrases.tsv").write_text("")
    config = tiny_config(world, "vl+ground")
    config["input"]["stores"]["train"]["path"] = str(tmp_path / "train")
    with pytest.raises(UserError, match="hold no phrase in the column 'phrases'"):
        System(config).open_data()
