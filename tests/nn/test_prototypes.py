# SPDX-License-Identifier: Apache-2.0
"""Tests of mtv_jax.nn.prototypes: streaming is exact, whatever the blocks and the devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtv_jax.dist.mesh import MeshConfig, make_mesh, put_batch
from mtv_jax.nn.prototypes import Projected, ProtoHead, Prototypes, cross_entropy

ROWS, STUDENTS, WIDTH, COUNT = 24, 3, 8, 40


def _inputs(seed: int = 0) -> dict:
    generator = np.random.default_rng(seed)

    def noise(*shape: int) -> jax.Array:
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    return {
        "students": noise(ROWS, STUDENTS, WIDTH),
        "teachers": noise(ROWS, WIDTH),
        "student": Prototypes(directions=noise(COUNT, WIDTH), scale=0.1 + noise(COUNT) ** 2 / 9),
        "teacher": Prototypes(directions=noise(COUNT, WIDTH), scale=0.1 + noise(COUNT) ** 2 / 9),
        "centre": noise(COUNT),
    }


def _streamed(inputs: dict, block_rows: int = ROWS) -> dict:
    return cross_entropy(
        Projected(vectors=inputs["students"], prototypes=inputs["student"]),
        Projected(vectors=inputs["teachers"], prototypes=inputs["teacher"]),
        inputs["centre"],
        student_temp=0.3,
        teacher_temp=jnp.asarray(0.2),
        block_bytes=4 * COUNT * STUDENTS * block_rows,
    )


def _plain(inputs: dict) -> dict:
    """The equation with all scores at once."""
    scores = inputs["student"].scores(inputs["students"], "float32") / 0.3
    target = inputs["teacher"].scores(inputs["teachers"], "float32") - inputs["centre"]
    target = jax.lax.stop_gradient(jax.nn.softmax(target / 0.2))
    losses = -jnp.sum(target[:, None] * jax.nn.log_softmax(scores), axis=-1)
    return {"loss": losses.mean(axis=1), "entropy": -jnp.sum(target * jnp.log(target), axis=-1)}


def _weighted(function, inputs: dict, *args) -> jax.Array:
    """A sum in which every row counts differently."""
    return jnp.sum(function(inputs, *args)["loss"] * jnp.arange(1.0, ROWS + 1))


@pytest.mark.parametrize("block_rows", [1, 5, 7, 12, 24, 100])
def test_blocks_change_neither_value_nor_gradient(block_rows):
    inputs = _inputs()
    chex.assert_trees_all_close(_streamed(inputs, block_rows), _plain(inputs), rtol=2e-6, atol=2e-6)
    plain = jax.grad(lambda x: _weighted(_plain, x))(inputs)
    streamed = jax.grad(lambda x: _weighted(_streamed, x, block_rows))(inputs)
    chex.assert_trees_all_close(streamed, plain, rtol=1e-5, atol=1e-4)
    assert float(jnp.abs(plain["student"].directions).max()) > 1


def test_bfloat16_factors_are_added_up_in_float32():
    """The gradient of the prototypes does not drift with the number of blocks."""
    generator = np.random.default_rng(0)
    directions = jnp.asarray(generator.normal(size=(64, 16)), jnp.float32)
    prototypes = Prototypes(directions=directions, scale=jnp.full(64, 0.25))
    vectors = jnp.asarray(generator.normal(size=(2, 512, 16)), jnp.float32)
    vectors /= jnp.linalg.norm(vectors, axis=-1, keepdims=True)

    def gradient(block_rows: int, dtype: str) -> np.ndarray:
        def value(prototypes: Prototypes) -> jax.Array:
            rows = cross_entropy(
                Projected(vectors=vectors[0][:, None], prototypes=prototypes),
                Projected(vectors=vectors[1], prototypes=prototypes),
                jnp.zeros(64),
                student_temp=0.1,
                teacher_temp=jnp.asarray(0.04),
                block_bytes=4 * 64 * block_rows,
                dtype=dtype,
            )
            return jnp.sum(rows["loss"])

        return np.asarray(jax.grad(value)(prototypes).directions)

    exact = gradient(512, "float32")
    errors = [
        np.linalg.norm(gradient(rows, "bfloat16") - exact) / np.linalg.norm(exact)
        for rows in (512, 1)
    ]
    assert errors[1] < 1.5 * errors[0] < 0.02, errors


def test_layers_start_with_a_deviation_of_a_fiftieth():
    params = ProtoHead(4).init(jax.random.key(0), jnp.zeros((1, 64)))["params"]
    np.testing.assert_allclose(jnp.std(params["fc2"]["kernel"]), 0.02, rtol=0.01)


def test_the_teacher_gets_no_gradient():
    grads = jax.grad(lambda x: _weighted(_streamed, x))(_inputs())
    for part in (grads["teachers"], grads["teacher"], grads["centre"]):
        assert jax.tree.all(jax.tree.map(lambda g: bool(jnp.all(g == 0)), part))


@pytest.mark.parametrize("shape", [(8, 1), (2, 4)], ids=["data8", "data2-fsdp4"])
def test_eight_devices_equal_one(shape):
    inputs = _inputs()
    rows = {k: np.asarray(inputs.pop(k)) for k in ("students", "teachers")}

    def value(rows: dict, shared: dict) -> jax.Array:
        return _weighted(_streamed, {**rows, **shared}, 2)

    one = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))(rows, inputs)
    mesh = make_mesh(MeshConfig(data=shape[0], fsdp=shape[1]))
    with jax.set_mesh(mesh):
        eight = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))(
            put_batch(mesh, ROWS, rows), inputs
        )
    chex.assert_trees_all_close(one, jax.device_get(eight), rtol=1e-5, atol=1e-4)


def test_blocks_bound_what_is_held_at_once():
    """Compiled: small blocks hold a fraction of what one block of all rows does."""

    def temporaries(block_rows: int) -> int:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), _large())
        run = jax.jit(jax.grad(lambda x: jnp.sum(_block(x, block_rows)["loss"])))
        return run.lower(shapes).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(64) < 0.25 * temporaries(4096)


def _large() -> dict:
    prototypes = Prototypes(directions=jnp.zeros((2048, 4)), scale=jnp.zeros(2048))
    return {"students": jnp.zeros((4096, 1, 4)), "teachers": jnp.zeros((4096, 4)), "p": prototypes}


def _block(inputs: dict, block_rows: int) -> dict:
    return cross_entropy(
        Projected(vectors=inputs["students"], prototypes=inputs["p"]),
        Projected(vectors=inputs["teachers"], prototypes=inputs["p"]),
        jnp.zeros(2048),
        student_temp=0.1,
        teacher_temp=jnp.asarray(0.04),
        block_bytes=4 * 2048 * block_rows,
    )


def test_scores_are_gain_times_cosine():
    head = ProtoHead(6, hidden=10, bottleneck=5)
    x = jax.random.normal(jax.random.key(0), (3, 4))
    params = head.init(jax.random.key(1), x)["params"]
    params["gains"] = jnp.arange(1.0, 7.0)
    projected = head.apply({"params": params}, x)
    np.testing.assert_allclose(jnp.linalg.norm(projected.vectors, axis=-1), 1.0, rtol=1e-6)
    unit = params["directions"] / jnp.linalg.norm(params["directions"], axis=-1, keepdims=True)
    expected = projected.vectors @ unit.T * params["gains"]
    scores = projected.prototypes.scores(projected.vectors, "float32")
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


def test_gains_are_parameters_only_when_they_are_learned():
    shapes = [
        jax.eval_shape(ProtoHead(6, learn_gains=learn).init, jax.random.key(0), jnp.zeros((1, 4)))
        for learn in (True, False)
    ]
    assert [("gains" in tree["params"]) for tree in shapes] == [True, False]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_sum_of_scores_needs_no_scores(dtype):
    """In bfloat16 to the rounding of float32: sums are taken of what the scores multiply."""
    generator = np.random.default_rng(0)
    directions = jnp.asarray(generator.normal(size=(COUNT, WIDTH)), jnp.float32)
    prototypes = Prototypes(directions=directions, scale=jnp.arange(1.0, COUNT + 1))
    vectors = jnp.asarray(generator.normal(size=(ROWS, WIDTH)), jnp.float32)
    expected = prototypes.scores(vectors, dtype).sum(axis=0)
    total = prototypes.sum_of_scores(vectors, dtype)
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-3)


def test_a_zero_vector_has_a_finite_gradient():
    head = ProtoHead(4, hidden=3, bottleneck=2)
    params = head.init(jax.random.key(0), jnp.zeros((1, 3)))
    grads = jax.grad(lambda x: head.apply(params, x).vectors.sum())(jnp.zeros((1, 3)))
    chex.assert_tree_all_finite(grads)
