# SPDX-License-Identifier: Apache-2.0
"""Golden files: what a published recipe resolves to, and what every parameter is given.

`make golden` rewrites them. A diff here changes somebody's training run: say so in the changelog.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mtv_b16, mtv_l16, quickstart
from configs.eval import paper, scenes
from mtv_jax.assemble import System
from mtv_jax.core.config import flatten, plain
from mtv_jax.dist.rules import map_rules, path_string, select
from mtv_jax.training.step import make_train_step
from tests.arch.systems import FROZEN, tiny_batch, tiny_model
from tests.training.test_step import TEACHER, step_factory

HERE = pathlib.Path(__file__).parent
COLUMNS = (
    *("imagenet", "imagenet_central", "imagenet_tfds", "knn", "coco", "ade20k", "nyu", "nyu_mat"),
    *("nyu_probe", "navi", "spair", "kitti"),
)
CONFIGS = {
    "mtv_b16": lambda: mtv_b16.get_config("tasks=vl,scale=10m"),
    "mtv_l16": lambda: mtv_l16.get_config("tasks=vl,scale=100m"),
    "quickstart": quickstart.get_config,
    "paper": lambda: paper.get_config(",".join(f"{name}={name.upper()}" for name in COLUMNS)),
    "scenes": scenes.get_config,
}


@pytest.fixture
def golden(request):
    """Compares text with a golden file, or rewrites the file."""

    def check(name: str, text: str) -> None:
        path = HERE / name
        if request.config.getoption("--rewrite_golden"):
            path.write_text(text)
        assert path.read_text() == text, f"{name} differs; see `make golden`"

    return check


@pytest.mark.parametrize("name", CONFIGS)
def test_resolved_config(golden, name):
    flat = flatten(plain(CONFIGS[name]()))
    golden(f"{name}.config.txt", "".join(f"{k} = {json.dumps(flat[k])}\n" for k in sorted(flat)))


def test_what_every_parameter_is_given(golden):
    """Init scale, learning-rate and decay multipliers, FSDP spec, EMA membership."""
    config = plain(quickstart.get_config())
    config["mesh"] = {"data": 2, "fsdp": 4}
    system = System(config)
    with jax.set_mesh(system.mesh):
        params = system.init_state().params
    lr = map_rules(system.optimizer.config.lr_rules, params, "lr")
    decay = map_rules(system.optimizer.config.decay_rules, params, "decay")
    teacher = {path for path, _ in _leaves(select(TEACHER.rules, params, "ema"))}
    columns = zip(_leaves(params), jax.tree.leaves(lr), jax.tree.leaves(decay), strict=True)
    lines = ["path\tshape\tinit std\tlr\tdecay\tsharding\tteacher of a full recipe"]
    for (path, leaf), multiplier, weight in columns:
        std = float(np.std(np.asarray(leaf, np.float64)))
        spec = tuple(leaf.sharding.spec)
        values = (path, leaf.shape, f"{std:.3g}", multiplier, weight, spec, path in teacher)
        lines.append("\t".join(map(str, values)))
    golden("parameters.tsv", "\n".join(lines) + "\n")


def _leaves(tree):
    return [(path_string(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


@functools.cache
def _curve(name: str) -> list[float]:
    """Loss of the first ten steps on fake batches."""
    factory = step_factory((name,))
    model = tiny_model((name,))
    state = jax.jit(lambda: factory.init(jax.random.key(0), tiny_batch(model)))()
    step = jax.jit(
        make_train_step(model, factory.optimizer, factory.ema, micro_batches=1), donate_argnums=0
    )
    losses = []
    for k in range(10):
        batch = jax.tree.map(jnp.asarray, tiny_batch(model, first_position=16 * k))
        state, metrics = step(state, FROZEN, batch)
        losses.append(float(metrics["loss"]))
    return losses


@pytest.mark.parametrize("name", ["sigmoid_vl"])
def test_first_ten_losses(request, name):
    path = HERE / f"{name}.losses.json"
    if request.config.getoption("--rewrite_golden"):
        path.write_text(json.dumps(_curve(name)) + "\n")
    # Other processors add in another order: the curve is compared, not its bits.
    np.testing.assert_allclose(_curve(name), json.loads(path.read_text()), rtol=2e-3)
