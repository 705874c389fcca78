# SPDX-License-Identifier: Apache-2.0
"""Tests of mtv_jax.core.config."""

import dataclasses
from collections.abc import Mapping

import pytest

from mtv_jax.core import config as cfg
from mtv_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Receiver:
    name: str
    count: int = 3
    pair: tuple[float, float] = (0.0, 1.0)
    rules: tuple[tuple[str, float], ...] = ()
    inner: Inner = Inner()
    flag: bool = False
    maybe: int | None = None


def test_values_become_the_annotated_types():
    values = {
        "name": "a",
        "pair": [1, 2],
        "rules": [["x", 1]],
        "inner": {"rate": 2},
        "maybe": None,
    }
    built = cfg.build(Receiver, values, "section")
    assert built.pair == (1.0, 2.0) and isinstance(built.pair[0], float)
    assert built.rules == (("x", 1.0),) and built.inner == Inner(rate=2.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a", "cuont": 1}, r'no field section.cuont \(did you mean "count"\?\)'),
        ({}, "lacks section.name"),
        ({"name": "a", "count": "three"}, "section.count = 'three' should be int"),
        ({"name": "a", "count": True}, "section.count = True should be int"),
        ({"name": "a", "flag": 1}, "section.flag = 1 should be bool"),
        ({"name": "a", "pair": [1, 2, 3]}, "section.pair"),
        ({"name": "a", "inner": {"rat": 2}}, 'section.inner.rat .did you mean "rate"'),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(UserError, match=message):
        cfg.build(Receiver, values, "section")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "type must be"),
        ({"type": "os:system"}, "not trusted; pass --trust_root=os"),
        ({"type": "mtv_jax.objectives.nothing:X"}, "No module named"),
        ({"type": "mtv_jax.objectives.sigmoid_vl:SigmoidVl"}, 'did you mean "SigmoidVL"'),
        ({"type": "mtv_jax.objectives.sigmoid_vl:SigmoidVL", "chunks": 1}, 'did you mean "chunk"'),
    ],
)
def test_objects_that_cannot_be_resolved(spec, message):
    with pytest.raises(UserError, match=message):
        cfg.resolve(spec, "objectives.x", name="x")


def test_trusted_roots_resolve():
    spec = {"type": "tests.core.test_config:Receiver", "count": 5}
    with pytest.raises(UserError, match="not trusted"):
        cfg.resolve(spec, "x", name="a")
    assert cfg.resolve(spec, "x", trusted=("tests",), name="a").count == 5


BASE = {
    "seed": 0,
    "optim": {"lr": 1e-3},
    "mesh": {"data": -1},
    "micro_batches": 1,
    "notes": [],
    "input": {"workers": 2, "canvas": 0, "stores": {"train": {"path": "a", "weight": 1.0}}},
    "model": {"remat": "none", "dtype": "bfloat16"},
}


@pytest.mark.parametrize(
    ("path", "value", "same"),
    [
        ("mesh.data", 4, True),
        ("micro_batches", 4, True),
        ("notes", ["why"], True),
        ("input.workers", 8, True),
        ("input.stores.train.path", "b", True),
        ("model.remat", "full", True),
        ("seed", 1, False),
        ("optim.lr", 2e-3, False),
        ("input.canvas", 64, False),
        ("input.stores.train.weight", 2.0, False),
        ("model.dtype", "float32", False),
    ],
)
def test_the_fingerprint_covers_meaning_only(path, value, same):
    changed = cfg.plain(BASE)
    *parents, last = path.split(".")
    node = changed
    for key in parents:
        node = node[key]
    node[last] = value
    assert (cfg.fingerprint(BASE) == cfg.fingerprint(changed)) is same
    lines = cfg.diff(cfg.flatten(BASE), cfg.flatten(changed))
    assert len(lines) == 1 and lines[0].startswith(f"{path}: ")


def test_numbers_below_their_least_are_refused():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Counted:
        every: int = cfg.at_least(1, 5)
        count: int = cfg.at_least(2)

    assert cfg.build(Counted, {"count": 2}, "x") == Counted(every=5, count=2)
    with pytest.raises(UserError, match=r"x\.every = 0 should be at least 1"):
        cfg.build(Counted, {"every": 0, "count": 2}, "x")
    with pytest.raises(UserError, match=r"config lacks count; set --config\.count"):
        cfg.build(Counted, {}, "")


def test_a_weight_is_a_number_or_a_mapping():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Weighted:
        weight: float | Mapping[float, float] = 1.0

    assert cfg.build(Weighted, {"weight": {0.0: 1.0}}, "x").weight == {0.0: 1.0}
    with pytest.raises(UserError, match=r"x\.weight = 'high'"):
        cfg.build(Weighted, {"weight": "high"}, "x")
