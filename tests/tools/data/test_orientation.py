# SPDX-License-Identifier: Apache-2.0
"""Images whose EXIF data a downloader lost are turned by what it wrote down."""

import io
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from input_pipeline import decode
from input_pipeline.store import Store
from tools.data import ingest
from tools.data.orientation import from_metadata

TURNED = json.dumps({"Image Orientation": "Rotated 90 CW", "Image Make": "x"})


def picture() -> bytes:
    """Wide; dark at the left. Turned by a quarter to the right it is tall, and dark on top."""
    pixels = np.tile(np.linspace(0, 255, 96).astype(np.uint8)[None, :, None], (64, 1, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("exif", "orientation"),
    [
        (TURNED, 6),
        (TURNED.encode(), 6),
        (json.dumps({"Image Orientation": "Rotated 180"}), 3),
        (json.dumps({"Image Orientation": "Horizontal (normal)"}), 1),
        ("{}", 1),
        ("{", 1),
        ("[1]", 1),
        ("null", 1),
        (b"\xff", 1),
        (None, 1),
        (7, 1),
    ],
)
def test_what_metadata_tell(exif, orientation):
    assert from_metadata({"exif": exif}) == orientation
    assert from_metadata({}) == 1


@pytest.mark.parametrize("source", ["json", "parquet"])
def test_an_image_is_stored_upright(tmp_path, source):
    folder, image = tmp_path / "in", picture()
    folder.mkdir()
    if source == "json":
        (folder / "a.jpg").write_bytes(image)
        (folder / "a.json").write_text(json.dumps({"caption": "a", "exif": TURNED}))
    else:
        columns = {"key": ["a"], "jpg": [image], "caption": ["a"], "exif": [TURNED]}
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / "0.parquet")
    arguments = ["--input", str(folder), "--output", str(tmp_path / "out"), "--min_side", "32"]
    assert ingest.main([*arguments, "--workers", "1"]) == 0
    opened = Store.open(tmp_path / "out")
    row = opened.read(0, 0, ["image", "height", "width"])
    pixels = decode.decode_image(row["image"][0])
    assert (int(row["height"][0]), int(row["width"][0])) == pixels.shape[:2] == (96, 64)
    assert pixels[0].mean() < 20 and pixels[-1].mean() > 235
    assert "exif" not in opened.fields
