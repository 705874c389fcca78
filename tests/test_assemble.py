# SPDX-License-Identifier: Apache-2.0
"""What only shows when the parts of a config are together."""

import re

import pytest

from mtv_jax.assemble import System
from mtv_jax.core.errors import UserError
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
