# SPDX-License-Identifier: Apache-2.0
"""The labelling bench with PyTorch: operations of published sizes, steps of the real experts."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (make test-torch)")

from tools.bench import label, label_flops, label_host, label_inputs, published  # noqa: E402

pytestmark = pytest.mark.torch
NAMES = ("Depth Anything V2", "OWLv2")
TINY = published.DepthSize(dim=24, layers=4, heads=2, fusion=8, neck=(8, 16, 24, 24))


def test_a_product_is_two_operations_a_multiply_add():
    layer = torch.nn.Linear(7, 5)
    assert label_flops.flops(lambda: layer(torch.zeros(3, 7))) == 2 * 3 * 7 * 5


@pytest.fixture(scope="module")
def counted():
    return label_flops.count()


def test_sizes_are_the_published_ones(counted):
    """Parameters as Depth Anything's repository lists them; a ViT's operations by hand."""
    counts = {(row.network, row.input): row for row in counted}
    for name, millions in (("small", 24.8), ("base", 97.5), ("large", 335.3)):
        row = counts[f"Depth Anything V2 {name}", "518x518"]
        assert row.parameters == pytest.approx(millions * 1e6, rel=1e-3)
    tokens, dim = 3601, 768
    layers = 12 * (24 * tokens * dim**2 + 4 * tokens**2 * dim)
    patches = 2 * 3600 * dim * 16 * 16 * 3
    assert counts["OWLv2-B/16", "960x960, no head"].flops == layers + patches
    tokens, dim = 32 * 16, 512
    layers = 12 * (24 * tokens * dim**2 + 4 * 16 * tokens * dim)
    assert counts["OWLv2-B/16", "32 texts"].flops == layers + 2 * 32 * dim**2
    works = {work.name: work for work in label_flops.works(counted)}
    whole = works["regions: RAM++, then OWLv2"].flops
    once = works["the same, texts embedded once"].flops
    assert whole - once == counts["OWLv2-B/16", "32 texts"].flops
    assert 0.2 < works["depth, large, 4:3"].utilisation(600_000) < 0.5


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    opened = label_inputs.write_store(folder / "store", 2)
    return opened, label_host.experts(folder, label_inputs.sample(opened), TINY)


def test_steps_of_every_expert_are_timed(found):
    opened, experts = found
    measured = list(label_host.time_steps(opened, experts, 0.01))
    names = {(step.expert, step.name) for step in measured}
    assert len(names) == len(measured) == 2 + 4 + 4 + 3
    assert all(step.seconds > 0 for step in measured)
    waits = [label_host.spent(measured, name, label_host.ON_THE_DEVICES) for name in NAMES]
    assert waits[1] > waits[0] > 0, "squares of 960 pixels are more to stack"


def test_labels_are_weighed(found):
    opened, experts = found
    weighed = label_host.bytes_on_disk(opened.path, experts)
    assert list(weighed) == ["images", "depth_v1", "ram_tags_v1", "regions_v1"]
    assert 40_000 < weighed["images"] < 100_000 and 5_000 < weighed["depth_v1"] < 40_000
    assert 100 < weighed["ram_tags_v1"] < weighed["regions_v1"] < 2_000


@pytest.mark.parametrize(
    ("part", "rows"), [("flops", 33), ("host", 15), ("driver", 6), ("bytes", 4)]
)
def test_every_part_prints_tables(counted, tmp_path, monkeypatch, part, rows):
    monkeypatch.setattr(label, "_SECONDS", SimpleNamespace(value=0.01))
    monkeypatch.setattr(label, "_ROWS", 8)
    monkeypatch.setattr(label_flops, "count", lambda: counted)
    monkeypatch.setitem(published.DEPTH_SIZES, "small", TINY)
    (made,) = label._chosen([part])
    tables = "\n".join(made(tmp_path)).split("\n\n")
    lines = [table.splitlines() for table in tables]
    assert sum(len(table) - 2 for table in lines) == rows
    for table in lines:
        assert len({line.count("|") for line in table}) == 1
