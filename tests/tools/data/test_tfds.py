# SPDX-License-Identifier: Apache-2.0
"""Samples out of prepared data sets: builder folders made by hand, and one that TFDS makes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from input_pipeline import example
from input_pipeline.store import Store
from input_pipeline.tfrecord import RecordWriter, index_path
from mtv_jax.core.errors import UserError
from tools.data import ingest, inputs, sources, verify

_FEATURES = "tensorflow_datasets.core.features"
_IMAGE = {"pythonClassName": f"{_FEATURES}.image_feature.Image", "image": {"dtype": "uint8"}}
_TEXT = {"pythonClassName": f"{_FEATURES}.text_feature.Text", "text": {}}
_LABEL = {
    "pythonClassName": f"{_FEATURES}.class_label_feature.ClassLabel",
    "classLabel": {"numClasses": "2"},
}


def _tensor(dtype):
    tensor = {"dtype": dtype, "encoding": "none", "shape": {}}
    return {"pythonClassName": f"{_FEATURES}.tensor_feature.Tensor", "tensor": tensor}


def _sequence(feature):
    sequence = {"feature": feature, "length": "-1"}
    return {"pythonClassName": f"{_FEATURES}.sequence_feature.Sequence", "sequence": sequence}


def _dict(**features):
    name = f"{_FEATURES}.features_dict.FeaturesDict"
    return {"pythonClassName": name, "featuresDict": {"features": features}}


def _build(folder, features, splits, **info):
    """A prepared data set: `splits` has by name the examples of every shard."""
    folder.mkdir(parents=True)
    entries = []
    for split, shards in splits.items():
        for number, examples in enumerate(shards):
            path = folder / f"tiny-{split}.tfrecord-{number:05}-of-{len(shards):05}"
            with RecordWriter(path) as writer:
                for columns in examples:
                    writer.write(example.encode(columns))
            index_path(path).unlink()
        entries.append({"name": split, "shardLengths": [str(len(shard)) for shard in shards]})
    (folder / "features.json").write_text(json.dumps(_dict(**features)))
    content = {"name": "tiny", "fileFormat": "tfrecord", "splits": entries, **info}
    (folder / "dataset_info.json").write_text(json.dumps(content))
    return folder


def _samples(folder, **options):
    """Samples and what the breaks say."""
    samples, broken = [], []
    for part in inputs.find(str(folder), sources.Options(**options)).parts:
        try:
            samples += part.samples()
        except sources.BrokenPart as error:
            broken.append(str(error))
    return samples, broken


def _texts(folder, **options):
    return [sample.text for sample in _samples(folder, **options)[0]]


def _ingest(source, output, *options):
    arguments = ["--input", str(source), "--output", str(output), "--min_side", "64"]
    return ingest.main([*arguments, "--workers", "1", *options])


@pytest.fixture
def plain(tmp_path):
    """Two shards of two samples each, images of one byte."""
    shards = [
        [{"image": bytes([10 * s + r]), "caption": f"{s}{r}"} for r in (0, 1)] for s in (0, 1)
    ]
    return _build(tmp_path / "tiny/1.0.0", {"image": _IMAGE, "caption": _TEXT}, {"train": shards})


def test_what_coco_captions_looks_like(tmp_path, picture, encoded):
    captions = _sequence(_dict(id=_tensor("int64"), text=_TEXT))
    features = {"image": _IMAGE, "captions": captions, "punsafe": _tensor("float32")}
    features |= {"image/filename": _TEXT, "NSFW": _TEXT, "blur": _tensor("int64")}

    def shard(first):
        return [
            {
                "image": encoded(picture(seed=row)),
                "captions/id": [1, 2],
                "captions/text": [f"caption {row}", "another"],
                "punsafe": [0.5] if row else [float("nan")],
                "NSFW": "UNLIKELY",
                "blur": row,
            }
            for row in range(first, first + 3)
        ]

    folder = _build(tmp_path / "in", features, {"train": [shard(0), shard(10)], "val": [shard(0)]})
    output = tmp_path / "store"
    assert _ingest(folder, output, "--keep_columns", "blur") == 0
    opened = Store.open(output)
    assert opened.shard_rows == (3, 3)
    assert list(opened.fields)[4:] == ["punsafe", "nsfw", "blur"]
    row = opened.read(1, 2, opened.fields)
    assert row["key"] == [b"train-00001/00000002"]
    assert row["caption"] == [b"caption 12"] and row["image"] == [encoded(picture(seed=12))]
    assert row["punsafe"].item() == 0.5 and row["nsfw"] == [b"UNLIKELY"]
    assert row["blur"].item() == 12 and row["blur"].dtype == np.float32
    assert "punsafe" not in opened.read(0, 0, opened.fields)
    assert verify.main([str(output), "--workers", "1"]) == 0
    assert sorted(path.suffix for path in folder.iterdir() if path.suffix == ".index") == []


def test_splits(tmp_path, plain):
    assert _texts(plain) == [b"00", b"01", b"10", b"11"]
    other = {"train": [[]], "val": [[{"image": b"1"}, {"image": b"2"}]]}
    folder = _build(tmp_path / "other", {"image": _IMAGE}, other)
    parts = inputs.find(str(folder), sources.Options(split="val")).parts
    assert [(part.name, part.survey().samples) for part in parts] == [("val-00000", 2)]
    with pytest.raises(UserError, match=r"no split 'test': give --split train or val$"):
        _samples(folder, split="test")


@pytest.mark.parametrize(
    ("features", "columns", "expected"),
    [
        ({"caption": _TEXT, "text": _TEXT}, {"caption": "a", "text": "b"}, b"a"),
        ({"text": _TEXT, "title": _TEXT}, {"text": "a", "title": "b"}, b"a"),
        ({"title": _tensor("string")}, {"title": "a"}, b"a"),
        ({"captions": _sequence(_TEXT)}, {"captions": ["a", "b"]}, b"a"),
        ({"captions": _sequence(_dict(text=_TEXT))}, {"captions/text": ["a", "b"]}, b"a"),
        ({"captions": _dict(text=_TEXT)}, {"captions/text": ["a"]}, b"a"),
        ({"captions": _sequence(_TEXT)}, {"captions": []}, None),
        ({"caption": _tensor("int64"), "other": _TEXT}, {"caption": 1, "other": "a"}, None),
        ({"label": _LABEL}, {"label": 1}, None),
    ],
)
def test_where_captions_are(tmp_path, features, columns, expected):
    split = {"train": [[{"image": b"1"} | columns]]}
    assert _texts(_build(tmp_path / "in", {"image": _IMAGE} | features, split)) == [expected]


def test_captions_that_are_asked_for(tmp_path):
    rows = [{"image": b"1", "label": label, "other": "a", "caption": "b"} for label in (1, 0, -1)]
    features = {"image": _IMAGE, "label": _LABEL, "other": _TEXT, "caption": _TEXT}
    folder = _build(tmp_path / "in", features, {"train": [rows]})
    assert _texts(folder, caption_column="other") == [b"a"] * 3
    with pytest.raises(UserError, match=r"label\.labels\.txt cannot be read"):
        _texts(folder, caption_column="label")
    (folder / "label.labels.txt").write_text("cat\nred fox\n")
    assert _texts(folder, caption_column="label") == [b"red fox", b"cat", None]
    for column, message in {"words": "has no column words", "image": "image is no text"}.items():
        with pytest.raises(UserError, match=message):
            _texts(folder, caption_column=column)


def test_which_image(tmp_path):
    rows = [{"photo": b"1", "mask": b"2", "image": b"3"}]
    three = {"photo": _IMAGE, "mask": _IMAGE, "image": _IMAGE}
    two = {"photo": _IMAGE, "mask": _IMAGE}
    one = {"photo": _IMAGE, "mask": _tensor("uint8")}
    folders = {
        name: _build(tmp_path / name, features, {"train": [rows]})
        for name, features in {"three": three, "two": two, "one": one}.items()
    }
    assert _samples(folders["three"])[0][0].image == b"3"
    assert _samples(folders["one"])[0][0].image == b"1"
    with pytest.raises(UserError, match=r"needs an Image .* \(it has: photo: Image, mask: Image\)"):
        _samples(folders["two"])


def test_rows_that_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_IMAGE_BYTES", 10)
    monkeypatch.setattr(sources, "MAX_TEXT_BYTES", 5)
    rows = [
        {"image": b"1", "caption": "a"},
        {"image": b"1" * 11, "caption": "a"},
        {"image": b"1", "caption": "abcdef"},
        {"image": [], "caption": "a"},
        {"image": [1, 2], "caption": "a"},
        {"caption": "a"},
    ]
    features = {"image": _IMAGE, "caption": _TEXT}
    samples, broken = _samples(_build(tmp_path / "in", features, {"train": [rows]}))
    assert [sample.refusal for sample in samples] == [
        "",
        "oversize_member",
        "oversize_member",
        "no_image",
        "no_image",
        "no_image",
    ]
    assert [sample.key for sample in samples] == [f"0000000{row}" for row in range(6)]
    assert not broken


def test_what_is_no_example_is_refused(plain):
    with RecordWriter(plain / "tiny-train.tfrecord-00000-of-00002") as writer:
        for payload in (b"no example", b""):
            writer.write(payload)
    samples, broken = _samples(plain)
    assert [s.refusal for s in samples] == ["unreadable", "no_image", "", ""] and not broken


def test_a_damaged_shard_is_a_broken_part(plain, tmp_path, capsys):
    path = plain / "tiny-train.tfrecord-00000-of-00002"
    path.write_bytes(path.read_bytes()[:-3])
    samples, broken = _samples(plain)
    assert [sample.text for sample in samples] == [b"00", b"10", b"11"]
    assert len(broken) == 1 and "cut short" in broken[0]
    with RecordWriter(path) as writer:
        writer.write(example.encode({"image": b"1"}))
    samples, broken = _samples(plain)
    assert len(samples) == 3 and broken == ["has 1 records, dataset_info.json says 2"]
    assert _ingest(plain, tmp_path / "store", "--min_side", "1") == 2
    assert "nothing was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("missing_shard", "tiny-train.tfrecord-00001-of-00002 is missing"),
        ("riegeli", "is prepared as riegeli: prepare it as tfrecord or array_record"),
        ("garbage", "features.json cannot be read"),
        ("old", "are not those of TFDS 4.9"),
        ("no_splits", "are not those of TFDS 4.9"),
        ("two", "several prepared data sets"),
    ],
)
def test_what_cannot_be_read_gets_one_line(plain, tmp_path, capsys, case, expected):
    info = json.loads((plain / "dataset_info.json").read_text())
    if case == "missing_shard":
        (plain / "tiny-train.tfrecord-00001-of-00002").unlink()
    elif case == "riegeli":
        (plain / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "riegeli"}))
    elif case == "garbage":
        (plain / "features.json").write_text("{")
    elif case == "old":
        (plain / "features.json").write_text('{"type": "FeaturesDict", "content": "{}"}')
    elif case == "no_splits":
        (plain / "dataset_info.json").write_text('{"name": "tiny"}')
    elif case == "two":
        _build(tmp_path / "tiny/1.0.1", {"image": _IMAGE}, {"train": [[]]})
    assert _ingest(tmp_path / "tiny", tmp_path / "store") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error") and expected in line


def test_fingerprint_follows_columns_and_files(plain):
    def fingerprints(**options):
        parts = inputs.find(str(plain), sources.Options(**options)).parts
        return [part.fingerprint() for part in parts]

    before = fingerprints()
    assert before == fingerprints() and before[0] != before[1]
    assert fingerprints(keep_columns=("caption",)) != before
    path = plain / "tiny-train.tfrecord-00001-of-00002"
    path.write_bytes(path.read_bytes() + b" ")
    assert fingerprints()[0] == before[0] and fingerprints()[1] != before[1]


_BUILDER = """
import io, json, pathlib, sys
import numpy as np
import tensorflow_datasets as tfds

class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        text = tfds.features.Text()
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=["cat", "red fox"]),
            "captions": tfds.features.Sequence({"id": np.int64, "text": text}),
            "punsafe": np.float32,
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, downloads):
        return {"train": self._generate_examples(range(5)), "test": self._generate_examples([7])}

    def _generate_examples(self, rows):
        for row in rows:
            image = io.BytesIO(pathlib.Path(f"{row}.jpg").read_bytes())
            captions = [{"id": 1, "text": f"caption {row}"}, {"id": 2, "text": "another"}]
            yield row, dict(image=image, label=row % 2, captions=captions, punsafe=row / 4)

Tiny(data_dir="data", file_format="array_record").download_and_prepare()
assert "tensorflow" not in sys.modules
"""


def test_what_tfds_itself_prepares(tmp_path, picture, encoded):
    images = {row: encoded(picture(seed=row)) for row in (0, 1, 2, 3, 4, 7)}
    for row, image in images.items():
        (tmp_path / f"{row}.jpg").write_bytes(image)
    (tmp_path / "builder.py").write_text(_BUILDER)
    command = [sys.executable, "builder.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stores = {}
    for name, options in {"text": [], "label": ["--caption_column", "label"]}.items():
        assert _ingest(tmp_path / "data", tmp_path / name, *options) == 0
        opened = Store.open(tmp_path / name)
        stores[name] = [opened.read(0, row, opened.fields) for row in range(opened.num_rows)]
    found = {row["image"][0]: row for row in stores["text"]}  # TFDS shuffles
    classes = {row["image"][0]: row["caption"] for row in stores["label"]}
    assert len(found) == 5
    for row in range(5):
        record = found[images[row]]
        assert record["caption"] == [f"caption {row}".encode()]
        assert record["punsafe"].item() == row / 4
        assert classes[images[row]] == [(b"cat", b"red fox")[row % 2]]
    assert _ingest(tmp_path / "data", tmp_path / "test", "--split", "test") == 0
    assert Store.open(tmp_path / "test").read(0, 0, ["image"])["image"] == [images[7]]
