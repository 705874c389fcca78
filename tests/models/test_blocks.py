# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.models.blocks import Block, BlockStack, Compute
from mtv_jax.models.sizes import TowerSize

SIZE = TowerSize(embed_dim=16, num_layers=4, mlp_dim=32, num_heads=2)
STACK = BlockStack(size=SIZE, compute=Compute())
X = jax.random.normal(jax.random.key(0), (2, 6, 16))


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(STACK.init, jax.random.key(1))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.array(rng.normal(0, 0.3, leaf.shape)), shapes)


def variant(**changes):
    return BlockStack(size=SIZE, compute=dataclasses.replace(Compute(), **changes))


def one_by_one(params, x):
    """Every block's output, without any loop of the stack."""
    outputs, block = [], Block(SIZE, Compute())
    for layer in range(SIZE.num_layers):
        x = block.apply({"params": jax.tree.map(lambda p, i=layer: p[i], params)}, x, None)
        outputs.append(x)
    return outputs


@pytest.mark.parametrize(
    ("wanted", "unroll"), [((3,), 1), ((1, 3), 2), ((0, 1, 2, 3), 1), ((1,), 1), ((0, 2), 4)]
)
def test_wanted_outputs_are_those_of_the_blocks_one_by_one(params, wanted, unroll):
    stack = variant(scan_unroll=unroll)
    outputs = jax.jit(lambda p: stack.outputs(p, X, None, wanted))(params)
    expected = jax.jit(one_by_one)(params, X)
    assert sorted(outputs) == list(wanted)
    for index in wanted:
        np.testing.assert_allclose(outputs[index], expected[index], atol=1e-5)


def loss(stack, params):
    outputs = stack.outputs(params, X, None, (1, 3))
    return sum(jnp.sum(jnp.sin(out)) for out in outputs.values())


@pytest.fixture(scope="module")
def expected_gradient(params):
    def reference(params):
        outputs = one_by_one(params, X)
        return jnp.sum(jnp.sin(outputs[1])) + jnp.sum(jnp.sin(outputs[3]))

    return jax.jit(jax.grad(reference))(params)


@pytest.mark.parametrize(
    "changes", [{"remat": "full"}, {"remat": "dots"}, {"remat": "full", "scan_unroll": 4}]
)
def test_how_it_is_computed_does_not_change_gradients(params, expected_gradient, changes):
    actual = jax.jit(jax.grad(lambda p: loss(variant(**changes), p)))(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), actual, expected_gradient
    )


def temporary_bytes(params, stack, wanted):
    def total(params, x):
        outputs = stack.outputs(params, x, None, wanted)
        return sum(jnp.sum(jnp.sin(out)) for out in outputs.values())

    x = jax.ShapeDtypeStruct((64, 32, 16), jnp.float32)
    compiled = jax.jit(jax.grad(total)).lower(params, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_rematerialisation_holds_less(params):
    none, dots, full = (
        temporary_bytes(params, variant(remat=remat), (3,)) for remat in ("none", "dots", "full")
    )
    assert full < dots < none


def test_a_tap_costs_little_more_than_itself(params):
    full = variant(remat="full")
    tapped = temporary_bytes(params, full, (1, 3)) - temporary_bytes(params, full, (3,))
    output = 64 * 32 * 16 * 4
    assert tapped < 4.5 * output  # its slot and the spare one, once each way


def test_a_tap_out_of_range_is_an_error(params):
    for wanted in ((4,), (-1, 2)):
        with pytest.raises(ValueError, match="of a tower of 4 blocks"):
            STACK.outputs(params, X, None, wanted)


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def test_bfloat16_keeps_its_float32_islands(params):
    stack = variant(dtype="bfloat16")
    x = X.astype(jnp.bfloat16)
    traced = jax.make_jaxpr(lambda p, x: stack.outputs(p, x, None, (3,)))(params, x)
    kinds = {}
    for eqn in equations(traced.jaxpr):
        kinds.setdefault(eqn.primitive.name, set()).add(eqn.invars[0].aval.dtype.name)
    assert kinds["exp"] == {"float32"}, "softmax"
    assert kinds["rsqrt"] == {"float32"}, "norm statistics"
    assert kinds["dot_general"] == {"bfloat16"}
    assert traced.out_avals[0].dtype == jnp.bfloat16
