# SPDX-License-Identifier: Apache-2.0
"""ImageNet as TensorFlow Datasets prepares it: records, labels, and what is wrong with them."""

import pathlib

import pytest

from input_pipeline import example, files, tfrecord
from input_pipeline.layouts.imagenet_tfds import ImageNetTfds
from mtv_jax.core.errors import UserError
from tests.input_pipeline.layouts.readers import each


@each("imagenet_tfds")
def test_imagenet_of_tfds(made):
    made.open()
    assert made.labels().tolist() == [0, 7, 999]
    pixels = [int(made.image(row)[0, 0, 0]) for row in range(3)]
    assert pixels == pytest.approx([0, 7, 249], abs=2)
    assert ImageNetTfds(root=made.root, limit=1).labels().tolist() == [0]


@each("imagenet_tfds")
def test_a_read_only_folder_of_tfds(made, monkeypatch):
    """Offsets are found anew, and stay in memory."""

    def refuse(path, data):
        raise PermissionError(path)

    monkeypatch.setattr(files, "write_atomically", refuse)
    made.open()
    assert made.labels().tolist() == [0, 7, 999]
    assert not list(pathlib.Path(made.root).rglob("*.index"))


@each("imagenet_tfds")
def test_records_of_tfds_that_cannot_be_trusted(made, caplog):
    """The image is black and logged; a class that is unknown is an error."""
    path = made.items[0].path
    data = bytearray(path.read_bytes())
    data[40] ^= 255
    path.write_bytes(data)
    made.open()
    assert not made.image(0).any() and "row 0 at byte 0: payload checksum" in caplog.text
    assert made.image(1).any()
    with pytest.raises(UserError, match=r"row 0 at byte 0: payload checksum.*; get it from http"):
        made.labels()


@pytest.mark.parametrize(("record", "message"), [
    ({"label": -1, "image": b""}, "labels outside 0 … 999; get it from http"),
    ({"label": 1000, "image": b""}, "the split validation has labels outside 0 … 999"),
    ({"image": b""}, "row 0 has no feature 'label' of ImageNet"),
    ({"label": [1, 2]}, "row 0 has no feature 'label' of ImageNet"),
])  # fmt: skip
@each("imagenet_tfds")
def test_labels_of_tfds_that_are_none(made, record, message):
    with tfrecord.RecordWriter(made.items[2].path) as writer:
        writer.write(example.encode(record))
    with pytest.raises(UserError, match=message):
        made.labels()
