# SPDX-License-Identifier: Apache-2.0
"""Licences of labels, from the manifests."""

import dataclasses
import json

from input_pipeline.licences import terms
from input_pipeline.store import finish_sidecar, write_shard
from tests.tools.label.stubs import MEAN, Means
from tests.tools.label.test_driver import ROWS, job, path  # noqa: F401 - a fixture
from tools.label.base import Licence
from tools.label.run import label_store


class NotForSale(Means):
    @property
    def licence(self) -> Licence:
        return Licence(name="CC-BY-NC-4.0", commercial=False)


def test_every_sidecar_has_its_line(path):  # noqa: F811
    label_store(job(path))
    expert = NotForSale(name="other", sidecar="other_v1")
    text = label_store(dataclasses.replace(job(path), expert=expert))
    for shard, rows in enumerate(ROWS):
        first = sum(ROWS[:shard])
        write_shard(path, "mine_v1", shard, [{"key": f"row{first + k}"} for k in range(rows)])
    finish_sidecar(path, "mine_v1", (dataclasses.replace(MEAN, name="mine"),), {})
    assert [str(entry) for entry in terms(path)] == [
        "means_v1: Means, none: commercial use allowed",
        "mine_v1: unknown maker, licence not recorded: unknown",
        "other_v1: NotForSale, CC-BY-NC-4.0: NOT for commercial use",
    ]
    assert "CC-BY-NC-4.0" in text


class Reader(Means):
    """Made from what another expert wrote."""

    def reads(self, columns) -> tuple[str, ...]:
        return ("mean", "caption")

    def emits(self):
        return (dataclasses.replace(MEAN, name="again"),)


def test_labels_made_from_others_carry_their_terms(path):  # noqa: F811
    label_store(dataclasses.replace(job(path), expert=NotForSale(name="n", sidecar="first_v1")))
    label_store(dataclasses.replace(job(path), expert=Reader(name="r", sidecar="second_v1")))
    (second,) = terms(path, ["second_v1"])
    assert second.made_from == ("first_v1",) and second.commercial is False
    assert str(second) == "second_v1: Reader, none, made from first_v1: NOT for commercial use"
    for file in path.glob("first_v1*"):
        file.unlink()
    (second,) = terms(path, ["second_v1"])
    assert second.made_from == () and second.commercial is None, "nobody can tell any more"


def test_a_sidecar_that_was_made_anew_from_what_was_made_from_it(path):  # noqa: F811
    label_store(dataclasses.replace(job(path), expert=Means(name="m", sidecar="first_v1")))
    label_store(dataclasses.replace(job(path), expert=Reader(name="r", sidecar="second_v1")))
    manifest = json.loads((path / "first_v1.json").read_text())
    manifest["provenance"]["reads"] = {"again": "second_v1"}
    (path / "first_v1.json").write_text(json.dumps(manifest))
    assert [entry.commercial for entry in terms(path)] == [None, None]
