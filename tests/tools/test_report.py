# SPDX-License-Identifier: Apache-2.0
"""The report of a run: one page that fetches nothing, with pictures that tell the truth."""

import dataclasses
import html.parser
import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from input_pipeline.eval_set import EvalSet
from mtv_jax.assemble import System
from mtv_jax.core.config import fingerprint
from mtv_jax.drawing import NEAR, RIGHT, WRONG
from mtv_jax.evaluators.retrieval import Retrieval
from mtv_jax.evaluators.zeroshot import ZeroShot
from mtv_jax.training import plan, rundir
from mtv_jax.training.checkpoint import Checkpointer
from tests.tools.tiny import tiny_config
from tools import report
from tools.reporting import pictures

_NAMES = {"zeroshot", "retrieval_text_to_image", "retrieval_image_to_text"}


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory) -> pathlib.Path:
    """A run directory with an untrained checkpoint, and the files a run would leave."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    system = System(tiny_config(world))
    meaning = rundir.Meaning(config=system.config, preprocessing=system.preprocessing)
    rundir.open_rundir(workdir, meaning, allow_changed=False)
    rundir.record_run(workdir, meaning)
    plan.write(system.model, system.abstract_state, workdir)
    saver = Checkpointer(workdir, system.checkpoint)
    saver.save(7, system.init_state())
    saver.close()
    rows = [
        {"step": step, "loss": 5.0 - step / 50, "sigmoid_vl/loss": None if step == 3 else 4.0}
        | {"sigmoid_vl/blind_loss": 3.77, "images_per_s": 100.0}
        for step in range(1, 8)
    ]
    lines = [json.dumps(row) for row in rows]
    (workdir / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 8, "lo')
    numbers = {"zeroshot/top1": {"value": 0.4321, "chance": 1 / 3}}
    (workdir / "evals" / "00000005.json").write_text(json.dumps(numbers))
    (workdir / "evals" / "00000007.json").write_text(
        json.dumps({"heldout/sigmoid_vl": {"value": 3.21, "chance": None}})
    )
    return workdir


@pytest.fixture
def workdir(trained, tmp_path) -> pathlib.Path:
    """A copy of the run that a test may spoil."""
    copied = tmp_path / trained.name
    copied.mkdir()
    for path in trained.iterdir():
        if path.name == "ckpt" or path.name in ("evals", "tb", "logs"):
            (copied / path.name).symlink_to(path)
        else:
            (copied / path.name).write_bytes(path.read_bytes())
    return copied


def _report(workdir: pathlib.Path) -> str:
    assert report.main(["--workdir", str(workdir)]) == 0
    return (workdir / "report.html").read_text()


def _edit_config(workdir: pathlib.Path, **changes: object) -> None:
    path = workdir / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


class _Reader(html.parser.HTMLParser):
    """Collects tags and addresses; complains of tags that do not close."""

    def __init__(self, page: str):
        super().__init__()
        self.seen, self.sources, self._open = set(), [], []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag


def test_the_page_stands_alone_and_says_what_the_run_was(workdir):
    page = _report(workdir)
    reader = _Reader(page)
    assert {"svg", "polyline", "img", "details"} <= reader.seen and "script" not in reader.seen
    assert all(source.startswith("data:image/") for source in reader.sources)
    assert "http" not in re.sub("http-equiv", "", page) and len(page) < 3e6
    assert fingerprint(json.loads((workdir / "config.json").read_text())) in page
    assert "step 7 of 60" in page and "112 in batches of 16" in page
    assert "jax " in page and "pass image/global_crop/student" in page
    assert "heldout/sigmoid_vl" in page and "3.21" in page and "evals/00000007.json" in page
    assert page.count("<svg") == 3  # loss, sigmoid_vl/loss, images_per_s; the blind loss is a line


def test_pictures_are_files_and_in_the_page(workdir):
    page = _report(workdir)
    files = {path.stem: Image.open(path).size for path in (workdir / "pictures").glob("*.png")}
    assert files.keys() == _NAMES and page.count("<img") == len(_NAMES)
    assert all(min(size) > 100 for size in files.values())


def test_alarms_are_shown(workdir):
    assert "<p>No alarm.</p>" in _report(workdir)
    row = {"step": 6, "objective": "koleo", "problem": "flat <b>", "remedy": "rest"}
    line = json.dumps({**row, "metrics": {"effective_rank": 1.23456}})
    (workdir / "alarms.jsonl").write_text(f'{line}\n{{"step": 7, "obj')
    page = _report(workdir)
    assert "No alarm" not in page and "<td>koleo</td><td>flat &lt;b&gt;</td>" in page
    assert "<td>effective_rank 1.235</td><td>rest</td>" in page


def test_a_summary_is_preferred_to_evals(workdir):
    numbers = {"zeroshot/top1": {"value": 0.5, "chance": 0.125}}
    summary = {"workdir": str(workdir), "step": 7, "config": "0", "numbers": numbers}
    (workdir / "summary.json").write_text(json.dumps(summary))
    page = _report(workdir)
    assert "summary.json" in page and "<td>zeroshot/top1</td>" in page
    cells = re.findall(r'<td class="number">([^<]+)</td>', page)
    assert cells == ["0.5", "0.125", "4.0"]


def test_what_the_config_says_is_text_not_markup(workdir):
    config = json.loads((workdir / "config.json").read_text())
    config["evals"]["zeroshot"]["prompts"] = ["<b>a {}</b>"]
    _edit_config(workdir, evals=config["evals"])
    page = _report(workdir)
    assert "<b>" not in page and "&lt;b&gt;a {}&lt;/b&gt;" in page


@pytest.mark.parametrize("case", ["no evaluators", "no store", "no checkpoint", "no tokenizer"])
def test_without_pictures_the_page_says_why(workdir, case):
    config = json.loads((workdir / "config.json").read_text())
    if case == "no evaluators":
        _edit_config(workdir, evals={"heldout": config["evals"]["heldout"]})
        expected = "no evaluator of the config has pictures"
    elif case == "no store":
        for spec in config["evals"].values():
            spec["data"]["store"] = "gone"
        _edit_config(workdir, evals=config["evals"])
        expected = "No pictures of retrieval: the store gone is not there"
    elif case == "no checkpoint":
        (workdir / "ckpt").unlink()
        expected = "has no checkpoint yet"
    else:
        _edit_config(workdir, input={**config["input"], "tokenizer": "gone.model"})
        expected = "no tokenizer at"
    page = _report(workdir)
    assert expected in page and "<svg" in page and "<img" not in page


def test_a_folder_without_a_run_gets_one_line(tmp_path, capsys):
    assert report.main(["--workdir", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert "holds no run" in errors and errors.count("\n") == 1


@dataclasses.dataclass
class _Oracle:
    """Stands for a context whose features the test chooses."""

    images: np.ndarray
    texts: np.ndarray

    @property
    def model(self) -> "_Oracle":
        return self

    def lacks_text(self) -> str:
        return ""

    def image_features(self, data: EvalSet) -> np.ndarray:
        return self.images[: len(data)]

    def text_features(self, texts: list[str]) -> np.ndarray:
        return self.texts[: len(texts)]


def _has(picture: Image.Image, color: str) -> bool:
    rgb = tuple(bytes.fromhex(color[1:]))
    return bool((np.asarray(picture) == rgb).all(axis=-1).sum() > 500)  # a frame, not a letter


def test_frames_say_whether_the_class_is_right(world):
    evaluator = ZeroShot(name="z", data=EvalSet(store=str(world / "test")), prompts=("{}",))
    count = 32
    (picture,) = pictures.draw(evaluator, _Oracle(np.tile([1.0, 0.5, 0.2], (count, 1)), np.eye(3)))
    assert _has(picture.image, RIGHT) and _has(picture.image, NEAR)  # three classes: never red
    assert not _has(picture.image, WRONG)


@pytest.mark.parametrize("right", [True, False])
def test_the_right_image_and_caption_are_framed(world, right):
    evaluator = Retrieval(name="r", data=EvalSet(store=str(world / "test")), gallery=16)
    texts = np.eye(16) if right else -np.eye(16)
    images = np.zeros((32, 16))
    images[evaluator.searched().rows] = np.eye(16)
    by_text, by_image = pictures.draw(evaluator, _Oracle(images, texts))
    for picture in (by_text, by_image):
        assert _has(picture.image, RIGHT) == right and _has(picture.image, WRONG) != right
