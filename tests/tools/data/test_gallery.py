# SPDX-License-Identifier: Apache-2.0
"""The gallery shows what is there, where it is, in one file that nothing can break out of."""

import base64
import html.parser
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from input_pipeline import decode, store
from mtv_jax.core.fields import BOXES, CAPTION, DEPTH, IMAGE, PHRASES, SCORES, Field
from tools.data import gallery

_TAGS = Field(name="tags", shape="r", dtype="str", pad_to=64, encode="vocabulary")
_TAG_SCORES = Field(name="tag_scores", shape="r", pad_to=64)
_HOSTILE = '<script>alert("1")</script> & </article>'
_ROWS = 6


class _Page(html.parser.HTMLParser):
    """Elements with their attributes, and the text of each article."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.articles, self.header = [], [], [], ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "article":
            self.articles.append("")
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "article" in self.open:
            self.articles[-1] += data
        elif "header" in self.open:
            self.header += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def path(tmp_path, encoded):
    """Gray images of 80 x 40 in two shards; three sidecars, two of them of the same columns."""
    path = tmp_path / "made"
    image = encoded(Image.new("RGB", (80, 40), "#808080"), quality=95)
    keys = [f"k{row}" for row in range(_ROWS)]
    keys[1] = f"k1{_HOSTILE}"
    base = [{"key": key, "image": image, "caption": _HOSTILE} for key in keys]
    _write(path, store.BASE, base)
    store.finish_store(path, "made", [IMAGE, CAPTION], {})
    boxes = {"boxes": [0.25, 0.5, 0.75, 1.0], "phrases": [_HOSTILE], "scores": [0.5]}
    _write(path, "boxes_v1", [{"key": keys[0]}, *({"key": key, **boxes} for key in keys[1:])])
    columns = (BOXES, PHRASES, SCORES)
    made = {"expert": "a.b:Detector", "licence": "CC0", "commercial": True, "labelled": 5}
    made |= {"rejected_by_reason": {"no box": 1}, "dropped_by_reason": {"a low score": 10}}
    store.finish_sidecar(path, "boxes_v1", columns, made)
    other = {**boxes, "boxes": [0.0, 0.0, 0.5, 0.5], "phrases": ["second"]}
    _write(path, "boxes_v2", [{"key": key, **other} for key in keys])
    store.finish_sidecar(path, "boxes_v2", columns, {})
    ramp = np.tile(np.linspace(0, 65535, 80).astype(np.uint16), (40, 1))
    more = {"tags": ["sky", _HOSTILE], "tag_scores": [0.9, 0.4], "depth": decode.encode_png16(ramp)}
    _write(path, "more_v1", [{"key": key, **(more if key == "k2" else {})} for key in keys])
    store.finish_sidecar(path, "more_v1", (_TAGS, _TAG_SCORES, DEPTH), {})
    return path


def _write(path, sidecar, rows):
    for shard in range(2):
        store.write_shard(path, sidecar, shard, rows[3 * shard : 3 * shard + 3])


def _write_funnels(path):
    for shard, rejections in enumerate([{"k0": f"no box: {_HOSTILE}"}, {}]):
        funnel = {"rows": 3, "labelled": 3 - len(rejections), "rejections": rejections}
        (path / f"boxes_v1-{shard:05d}.funnel.json").write_text(json.dumps(funnel))


def _show(path, *options):
    output = path.parent / "gallery.html"
    assert gallery.main([str(path), "--output", str(output), *options]) == 0
    return _Page(output.read_text())


def test_every_row_is_there_and_nothing_leaves_the_file(path):
    page = _show(path)
    assert len(page.articles) == _ROWS
    links = [a[n] for _, a in page.elements for n in ("src", "href", "xlink:href") if n in a]
    assert len(links) == _ROWS + 1  # a picture each, and one depth map
    assert all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object"}
    style = (path.parent / "gallery.html").read_text()
    assert "prefers-color-scheme: dark" in style and "url(" not in style and "@import" not in style


def test_texts_are_shown_and_not_obeyed(path):
    _write_funnels(path)
    page = _show(path)
    assert f"k1{_HOSTILE}" in page.articles[1]  # the key
    assert all(_HOSTILE in article for article in page.articles)  # the caption
    assert f"boxes_v1: {_HOSTILE} 0.50" in page.articles[1]  # the phrase
    assert f"{_HOSTILE} 0.40" in page.articles[2]  # the tag
    assert f"no box: {_HOSTILE}" in page.articles[0]  # the reason


def test_boxes_lie_where_they_are(path):
    page = _show(path, "--rows", "1", "--only", "labelled")
    (image,) = page.all("image")
    assert (image["width"], image["height"]) == ("320", "160")
    (svg,) = page.all("svg")
    assert svg["viewbox"] == "0 0 320 160"
    names = ("x", "y", "width", "height", "stroke-dasharray")
    frames = [[rect[name] for name in names] for rect in page.all("rect")]
    assert frames == [["0.0", "0.0", "160.0", "80.0", "6 3"]]  # k0 has those of boxes_v2 alone
    frames = [[rect[name] for name in names] for rect in _show(path).all("rect")]
    assert frames[1:3] == [
        ["80.0", "80.0", "160.0", "80.0", "none"],
        ["0.0", "0.0", "160.0", "80.0", "6 3"],
    ]


def test_depth_is_warm_where_it_is_near(path):
    page = _show(path)
    (picture,) = page.all("img")
    data = base64.b64decode(picture["src"].partition(",")[2])
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB).astype(int)
    assert pixels.shape == (160, 320, 3)
    far, near = pixels[80, 30], pixels[80, 300]
    assert far.argmax() == 2 and near.argmax() == 0
    article = page.articles[2]
    assert article.index("far") < article.index("near") and "sky 0.90" in article


def test_reasons_of_rejected_rows(path):
    without = _show(path, "--only", "rejected")
    assert "no labels" in without.articles[0] and len(without.articles) == _ROWS - 1
    _write_funnels(path)
    page = _show(path)
    assert "boxes_v1 no box: <script>" in page.articles[0] and "no labels" in page.articles[1]
    assert (
        "boxes_v1: Detector, CC0: commercial use allowed; 5 of 6 rows labelled; "
        "without: no box 1; left out: a low score 10" in page.header
    )
    assert "boxes_v2: unknown maker, licence not recorded: unknown" in page.header
    assert "6 rows in 2 shards; 6 of them below" in page.header


def test_rows_are_those_asked_for(path):
    for sidecar in ("boxes_v1.json", "boxes_v2.json"):
        (path / sidecar).unlink()
    assert ["k2" in article for article in _show(path, "--only", "labelled").articles] == [True]
    shown = _show(path, "--only", "rejected").articles
    assert len(shown) == _ROWS - 1 and not any("k2" in article for article in shown)
    assert "row 0 (" in _show(path, "--rows", "2").articles[0]
    assert "row 5 (" in _show(path, "--rows", "2").articles[1]
    drawn = [_show(path, "--rows", "3", "--seed", seed).articles for seed in "112"]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("damage", ["image", "record", "raster"])
def test_a_bad_record_is_shown_as_such(path, damage):
    if damage == "record":
        shard = store.shard_path(path, store.BASE, 0)
        data = bytearray(shard.read_bytes())
        data[60] ^= 1
        shard.write_bytes(data)
    elif damage == "image":
        _write(path, store.BASE, [{"key": f"k{row}", "image": b"x"} for row in range(_ROWS)])
    else:
        rows = [{"key": f"k{row}", "depth": b"x"} for row in range(_ROWS)]
        _write(path, "more_v1", [rows[0], {**rows[1], "key": f"k1{_HOSTILE}"}, *rows[2:]])
    said = {"image": "no image: ", "record": "checksum", "raster": "not an image"}[damage]
    page = _show(path)
    assert len(page.articles) == _ROWS and said in page.articles[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--output", "/proc/no/gallery.html"], "cannot write"),
        (["--only", "labelled"], "nothing to show labelled: 6 of 6 rows were looked at"),
    ],
)
def test_bad_use_gets_one_line(path, tmp_path, capsys, options, said):
    for sidecar in path.glob("*_v?.json"):
        sidecar.unlink()
    arguments = [str(path), "--output", str(tmp_path / "gallery.html"), *options]
    assert gallery.main(arguments) == 2
    errors = capsys.readouterr().err.splitlines()
    assert said in errors[-1] and errors[-1].startswith("error: ")


@pytest.mark.parametrize("options", [["--rows", "0"], ["--seed", "-1"]])
def test_senseless_numbers_are_refused(path, tmp_path, options):
    with pytest.raises(SystemExit):
        gallery.main([str(path), "--output", str(tmp_path / "gallery.html"), *options])


def test_a_damaged_funnel_is_named(path, tmp_path, capsys):
    (path / "boxes_v1-00000.funnel.json").write_text("{")
    assert gallery.main([str(path), "--output", str(tmp_path / "gallery.html")]) == 2
    assert "boxes_v1-00000.funnel.json cannot be read" in capsys.readouterr().err
