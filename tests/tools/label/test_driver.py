# SPDX-License-Identifier: Apache-2.0
"""One shard in, one shard out, whatever happens between."""

import dataclasses
import io
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from input_pipeline import files, store
from input_pipeline.store import Store, finish_store, write_selection, write_shard
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import CAPTION, IMAGE
from tests.tools.label.stubs import MEAN, Meaner, Means
from tools.label import driver, jobs
from tools.label.jobs import Job
from tools.label.run import label_store

ROWS = (7, 4)


@pytest.fixture
def path(tmp_path):
    """Eleven images of rising brightness, every third of an odd width; one is damaged."""
    number = 0
    for shard, count in enumerate(ROWS):
        rows = []
        for _ in range(count):
            buffer = io.BytesIO()
            pixels = np.full((4, 6 + (number % 3 == 0), 3), 23 * number, np.uint8)
            Image.fromarray(pixels).save(buffer, "PNG")
            image = b"damaged" if number == 5 else buffer.getvalue()
            rows.append({"key": f"row{number}", "image": image, "caption": "x"})
            number += 1
        write_shard(tmp_path, "images", shard, rows)
    finish_store(tmp_path, "eleven", (IMAGE, CAPTION), {})
    return tmp_path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weighed(Means):
    """One that names a file."""

    weights: str = ""


def job(path: pathlib.Path, **settings) -> Job:
    return Job(path=path, expert=Means(name="means", **settings), threads=2)


def run(wanted: Job, labeller: Meaner, shard: int) -> int:
    return sum(driver.label_shard(wanted, labeller, shard))


def sidecar_bytes(path: pathlib.Path) -> dict[str, bytes]:
    """But for the funnels, which tell the time."""
    names = sorted(set(path.glob("means_v1*")) - set(path.glob("*.funnel.json")))
    return {file.name: file.read_bytes() for file in names}


def test_every_row_is_labelled_or_counted(path):
    text = label_store(job(path))
    assert "rows 11: 8 labelled, 3 without labels" in text
    assert "without, the image cannot be read: 1\n  row5: " in text
    assert "without, too bright: 2" in text
    opened = Store.open(path, ("means_v1",))
    found = [opened.read(*opened.locate(row), ["mean"]).get("mean") for row in range(11)]
    expected = [None if row in (5, 9, 10) else 23 * row for row in range(11)]
    assert [None if f is None else float(f[0]) for f in found] == expected
    provenance = json.loads((path / "means_v1.json").read_text())["provenance"]
    assert provenance["labelled"] == 8 and provenance["weights_sha256"] == "0" * 64
    assert provenance["commercial"] is True and provenance["settings"]["brightest"] == 200.0
    assert provenance["dropped_by_reason"] == {"odd columns": 3}
    assert "left out, odd columns: 3" in text and provenance["reads"] == {}
    first = json.loads((path / "means_v1-00000.funnel.json").read_text())
    assert first["rows"] == 7 and list(first["rejections"]) == ["row5"]
    assert first["rejections"]["row5"].startswith("the image cannot be read: ")
    assert provenance["rejected_by_reason"] == {"the image cannot be read": 1, "too bright": 2}
    assert not (path / ".means_v1").exists()


def test_batches_are_of_one_shape(path):
    """Full ones, and smaller powers of two at the end of a shard."""
    labeller = Meaner(Means(name="means"))
    wanted = job(path)
    jobs.begin(wanted, "")
    run(wanted, labeller, 0)
    assert labeller.batches == [[6, 6, 6], [7, 7, 7]], "rows 1 2 4; rows 0 3 6"
    run(wanted, labeller, 1)
    assert labeller.batches[2:] == [[6, 6]], "rows 7 and 8"
    labeller, wanted = Meaner(Means(name="means")), job(path, batch_size=4, sidecar="others_v1")
    jobs.begin(wanted, "")
    run(wanted, labeller, 0)
    assert labeller.batches == [[7, 7], [7], [6, 6], [6]]


def test_rows_do_not_wait_for_ever(path, monkeypatch):
    """With two rows waiting the shape that came first goes, full or not."""
    monkeypatch.setattr(driver, "_MOST_WAITING", 2)
    labeller, wanted = Meaner(Means(name="means")), job(path)
    jobs.begin(wanted, "")
    assert run(wanted, labeller, 0) == 7
    assert labeller.batches == [[7], [6, 6], [7], [6], [7]]


@pytest.mark.parametrize("stop_after", range(3))
def test_a_run_cut_anywhere_goes_on_to_the_same_bits(
    path, tmp_path_factory, monkeypatch, stop_after
):
    undisturbed = tmp_path_factory.mktemp("undisturbed")
    for file in path.iterdir():
        (undisturbed / file.name).write_bytes(file.read_bytes())
    label_store(job(undisturbed))
    with monkeypatch.context() as patch:
        patch.setattr(Means, "load", lambda self, device: Meaner(self, stop_after))
        with pytest.raises(KeyboardInterrupt):
            label_store(job(path))
    assert not (path / "means_v1.json").exists()
    again: list[Meaner] = []

    def load(self, device):
        again.append(Meaner(self))
        return again[0]

    monkeypatch.setattr(Means, "load", load)
    label_store(job(path))
    assert sidecar_bytes(path) == sidecar_bytes(undisturbed) and len(sidecar_bytes(path)) >= 5
    done_before = {0: 0, 1: 0, 2: 2}[stop_after]  # batches of whole shards
    assert sum(len(labeller.batches) for labeller in again) == 3 - done_before


@pytest.mark.parametrize("moved", range(5))
def test_a_run_killed_while_its_shards_move_goes_on(path, tmp_path_factory, monkeypatch, moved):
    """Two shards with their indexes and funnels; what was moved is not made again."""
    undisturbed = tmp_path_factory.mktemp("undisturbed")
    for file in path.iterdir():
        (undisturbed / file.name).write_bytes(file.read_bytes())
    label_store(job(undisturbed))
    replace, left = os.replace, iter(range(moved))

    def dying(source, target):
        moves = pathlib.Path(target).parent == path and "means_v1-" in str(target)
        if moves and next(left, None) is None:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            label_store(job(path))
    assert not (path / "means_v1.json").exists()
    monkeypatch.setattr(driver, "label_shard", None)
    assert "8 labelled" in label_store(job(path))
    assert sidecar_bytes(path) == sidecar_bytes(undisturbed)
    assert not (path / ".means_v1").exists()


def test_a_finished_shard_is_not_done_again(path):
    wanted = job(path)
    labeller = Meaner(wanted.expert)
    jobs.begin(wanted, "")
    run(wanted, labeller, 0)
    before = len(labeller.batches)
    run(wanted, labeller, 0)
    assert len(labeller.batches) == before
    (wanted.shards / "means_v1-00000.funnel.json").write_text("{")
    run(wanted, labeller, 0)
    assert len(labeller.batches) == 2 * before, "without statistics it counts as not there"


def test_other_settings_do_not_mix(path):
    jobs.begin(job(path), "a")
    jobs.begin(job(path, batch_size=5), "a")  # it changes no label
    with pytest.raises(UserError, match=r"of other settings \(brightest 200.0 -> 100.0\)"):
        jobs.begin(job(path, brightest=100.0), "a")
    with pytest.raises(UserError, match="weights_sha256 'a' -> 'b'"):
        jobs.begin(job(path), "b")


def test_paths_of_this_machine_are_not_recorded(path, tmp_path_factory):
    weights = tmp_path_factory.mktemp("somewhere") / "weights.pth"
    weights.touch()
    for given, kept in [(str(weights), "weights.pth"), ("google/owl", "google/owl"), ("", "")]:
        wanted = Job(path=path, expert=Weighed(name="means", weights=given))
        assert jobs.settings(wanted, "")["settings"]["weights"] == kept


def test_shards_of_another_base_are_refused(path):
    jobs.begin(job(path), "")
    finish_store(path, "another", (IMAGE, CAPTION), {})
    with pytest.raises(UserError, match=r"shards of other settings \(base_sha256 '\w+' -> "):
        jobs.begin(job(path), "")


def spoil(directory, prefix, shard, rows):
    write_shard(directory, prefix, shard, rows)
    file = store.shard_path(directory, prefix, shard)
    whole = bytearray(file.read_bytes())
    whole[-20] ^= 0xFF
    file.write_bytes(whole)


def rename(directory, prefix, shard, rows):
    write_shard(directory, prefix, shard, [{**row, "key": b"other"} for row in rows])


@pytest.mark.parametrize(
    ("write", "fault"), [(spoil, "is damaged "), (rename, "has other keys than the base")]
)
def test_a_shard_that_was_not_written_well_is_not_there(path, monkeypatch, write, fault):
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_shard", write)
        with pytest.raises(UserError, match=rf"means_v1-00000.tfrecord {fault}.*run again"):
            label_store(job(path))
    assert jobs.finished(job(path), 0) is None
    assert "8 labelled" in label_store(job(path))


def test_two_drivers_do_not_write_one_sidecar(path, monkeypatch):
    prepare = Meaner.prepare

    def prepare_and_try(self, sample):
        if self.settings.sidecar == "means_v1":
            refused = pytest.raises(UserError, match=r"another process is writing means_v1 .*: w")
            with refused, files.sole_writer(path, "means_v1"):
                pass
        return prepare(self, sample)

    monkeypatch.setattr(Meaner, "prepare", prepare_and_try)
    with files.sole_writer(path, "others_v1"):
        assert "8 labelled" in label_store(job(path))
    with pytest.raises(ZeroDivisionError), files.sole_writer(path, "means_v1"):
        raise ZeroDivisionError
    with files.sole_writer(path, "means_v1"):
        pass  # a run that failed holds nothing


@pytest.mark.parametrize("step", ["prepare", "finish"])
def test_an_exception_names_its_image(path, monkeypatch, step):
    """It ends the run, and what is done is kept."""
    work = getattr(Meaner, step)

    def failing(self, first, *rest):
        pixels = first if step == "finish" else first.image
        if pixels.mean() == 23 * 8:
            raise ZeroDivisionError
        return work(self, first, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Meaner, step, failing)
        with pytest.raises(ZeroDivisionError) as caught:
            label_store(job(path))
    assert caught.value.__notes__ == ["the image was row8"]
    assert jobs.finished(job(path), 0) and not jobs.finished(job(path), 1)
    assert "8 labelled" in label_store(job(path))


def test_too_little_memory_is_one_line(path, monkeypatch):
    full = type("OutOfMemoryError", (RuntimeError,), {})

    def infer(self, prepared):
        raise full("CUDA out of memory")

    monkeypatch.setattr(Meaner, "infer", infer)
    with pytest.raises(UserError, match=r"too little memory for batch_size 3: give .*size=1; "):
        label_store(job(path))
    monkeypatch.setattr(Meaner, "infer", lambda self, prepared: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        label_store(job(path))


def test_a_column_that_nothing_holds(path):
    expert = type("Asking", (Means,), {"reads": lambda self, columns: ("tags",)})(name="asking")
    with pytest.raises(UserError, match=r"asking reads the column 'tags', which .* does not have"):
        label_store(Job(path=path, expert=expert))


def test_what_an_older_sidecar_left_behind_goes(path):
    """Its manifest was removed, its shards were not; there were more of them."""
    write_shard(path, "means_v1", 2, [{"key": "old"}])
    assert "8 labelled" in label_store(job(path))
    assert not list(path.glob("means_v1-00002*"))


class Asking(Means):
    def reads(self, columns) -> tuple[str, ...]:
        return ("mean",)

    def emits(self):
        return (dataclasses.replace(MEAN, name="other"),)


def test_the_newest_of_two_sidecars_is_read(path):
    for sidecar in ("means_v10", "means_v2"):
        label_store(job(path, sidecar=sidecar))
    wanted = Job(path=path, expert=Asking(name="asking", sidecar="others_v1"))
    assert wanted.sources == {"mean": "means_v10"}
    assert wanted.opened().opened_sidecars == ("means_v10",)


def test_a_sidecar_that_is_there_is_left_alone(path):
    """But for what a run left behind that was killed in its last moment."""
    label_store(job(path))
    before = sidecar_bytes(path)
    jobs.begin(job(path), "")
    (path / ".means_v1" / "complete").touch()
    assert label_store(job(path, batch_size=1)).endswith("has a sidecar means_v1 already")
    told = label_store(job(path, brightest=1.0))
    assert "has a sidecar means_v1 already, MADE OTHERWISE (brightest 200.0 -> 1.0): " in told
    assert sidecar_bytes(path) == before and not (path / ".means_v1").exists()


def test_rows_outside_of_a_selection_are_counted_and_not_looked_at(path):
    write_selection(path, "some", np.asarray([1, 5, 7, 10]))
    wanted = dataclasses.replace(job(path), selection="some")
    text = label_store(wanted)
    assert "rows 11: 2 labelled, 9 without labels" in text
    assert "without, not in the selection: 7" in text
    opened = Store.open(path, ("means_v1",))
    rows = [opened.read(*opened.locate(row), ["mean"]) for row in range(11)]
    assert [number for number, row in enumerate(rows) if "mean" in row] == [1, 7]
    funnel = json.loads((path / "means_v1-00000.funnel.json").read_text())
    assert list(funnel["rejections"]) == ["row5"]
    provenance = json.loads((path / "means_v1.json").read_text())["provenance"]
    assert provenance["selection"].startswith("some, 4 rows, ")
    write_selection(path, "some", np.asarray([1, 5, 7, 9]))
    assert "MADE OTHERWISE (selection 'some, 4 rows" in label_store(wanted)
    with pytest.raises(UserError, match="no selection 'others'"):
        label_store(dataclasses.replace(job(path, sidecar="other_v1"), selection="others"))
