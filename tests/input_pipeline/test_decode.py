# SPDX-License-Identifier: Apache-2.0
"""Decoding, the canvas, 16-bit rasters."""

import io
import json
import os
import pathlib
import struct
import tarfile
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from input_pipeline import decode

_ROOT = pathlib.Path(__file__).parents[2]
_SHARED = pathlib.Path(os.environ.get("MTV_SHARED_DATA", _ROOT.parent / "shared" / "data"))


def _picture(height, width, seed=0):
    """A smooth colour picture with edges."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _encode(pixels, image_format, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("image_format", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 95, "subsampling": 0}, 2),
        ("JPEG", {"quality": 95, "progressive": True}, 2),
    ],
)
def test_decodes_to_rgb(image_format, options, tolerance):
    pixels = _picture(60, 90)
    decoded = decode.decode_image(_encode(pixels, image_format, **options))
    assert decoded.dtype == np.uint8
    assert decoded.shape == (60, 90, 3)
    assert np.abs(decoded.astype(int) - pixels).mean() <= tolerance


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "LA"])
def test_every_mode_gives_three_channels(mode):
    buffer = io.BytesIO()
    Image.fromarray(_picture(40, 30)).convert(mode).save(buffer, "PNG")
    assert decode.decode_image(buffer.getvalue()).shape == (40, 30, 3)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_not_applied(image_format):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _encode(_picture(40, 90), image_format, exif=exif)
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6
    assert decode.decode_image(data).shape == (40, 90, 3)


def test_large_jpeg_is_decoded_at_a_reduced_scale_with_room_to_spare():
    data = _encode(_picture(1200, 1600), "JPEG", quality=95)
    reduced = decode.decode_image(data, min_side=200)
    assert 300 <= min(reduced.shape[:2]) < 600
    full = decode.decode_image(data, min_side=401)
    assert full.shape == (1200, 1600, 3)
    small = cv2.resize(full, reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - reduced).mean() < 1.5


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("min_side", [None, 16])
def test_truncated_jpeg_is_refused_even_where_other_decoders_fill_in_gray(progressive, min_side):
    data = _encode(_picture(200, 300), "JPEG", quality=90, progressive=progressive)
    for cut in (data[: len(data) // 2], data[: len(data) // 2] + b"\xff\xd9", data[:-2]):
        with pytest.raises(decode.DecodeError, match="damaged JPEG"):
            decode.decode_image(cut, min_side=min_side)


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_other_bytes_are_refused(data):
    with pytest.raises(decode.DecodeError):
        decode.decode_image(data)


def test_truncated_png_is_refused():
    with pytest.raises(decode.DecodeError):
        decode.decode_image(_encode(_picture(60, 60), "PNG")[:-500])


def _png_bomb(width, height):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _jpeg_bomb(width, height):
    data = bytearray(_encode(_picture(16, 16), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("bomb", [_png_bomb(30_000, 30_000), _jpeg_bomb(60_000, 60_000)])
def test_bomb_is_refused_by_its_header(bomb, monkeypatch):
    def explode(*arguments, **options):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(decode.cv2, "imdecode", explode)
    monkeypatch.setattr(decode.simplejpeg, "decode_jpeg", explode)
    for read in (decode.decode_image, decode.decode_png16):
        with pytest.raises(decode.TooManyPixels, match=r"limit|could be decompression bomb"):
            read(bomb)


def test_canvas_of_equal_size_is_the_image():
    pixels = _picture(64, 64)
    np.testing.assert_array_equal(decode.to_canvas(pixels, 64), pixels)


@pytest.mark.parametrize("size", [(50, 80), (100, 140), (400, 300)])
def test_canvas_is_square_and_keeps_colours_in_place(size):
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[: size[0] // 2, :, 0] = 200
    pixels[:, size[1] // 2 :, 2] = 100
    canvas = decode.to_canvas(pixels, 96)
    assert canvas.shape == (96, 96, 3)
    assert canvas.dtype == np.uint8
    corners = canvas[[8, 8, 88, 88], [8, 88, 8, 88]]
    np.testing.assert_array_equal(corners, [(200, 0, 0), (200, 0, 100), (0, 0, 0), (0, 0, 100)])


def test_png16_is_lossless():
    raster = np.random.default_rng(0).integers(0, 65536, (37, 53)).astype(np.uint16)
    data = decode.encode_png16(raster)
    decoded = decode.decode_png16(data)
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, raster)
    assert Image.open(io.BytesIO(data)).mode == "I;16"


@pytest.mark.parametrize("raster", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint16)])
def test_png16_takes_only_16_bit_rasters(raster):
    with pytest.raises(ValueError, match="want uint16"):
        decode.encode_png16(raster)
    with pytest.raises(decode.DecodeError, match="not a 16-bit"):
        decode.decode_png16(cv2.imencode(".png", raster)[1].tobytes())


def _photos(count):
    """Photographs of at least 280 pixels, as encoded."""
    index = _SHARED / "labels" / "train_index.jsonl"
    if not index.exists():
        pytest.skip(f"no photographs: {index} is absent (set MTV_SHARED_DATA)")
    rows = [json.loads(line) for line in index.read_text().splitlines()]
    keys = {row["key"] for row in rows if row["photo"]}
    found = []
    with tarfile.open(_SHARED / "train" / "00000.tar") as archive:
        for member in archive:
            key, _, suffix = member.name.partition(".")
            if suffix == "jpg" and key in keys:
                data = archive.extractfile(member).read()
                if min(Image.open(io.BytesIO(data)).size) >= 280:
                    found.append(data)
    return [data for data in found if data.endswith(b"\xff\xd9")][:count]


def _gradient_energy(pixels):
    pixels = pixels.astype(np.float64)
    return (np.diff(pixels, axis=0) ** 2).sum() + (np.diff(pixels, axis=1) ** 2).sum()


@pytest.mark.parametrize("size", [32, 64, 112, 224])
def test_cut_from_the_canvas_equals_cut_from_the_original(size):
    """The bar for every photo window: mean difference 1/255, gradient energy 0.95 of Pillow's."""
    differences, energies = [], []
    rng = np.random.default_rng(0)
    for data in _photos(24):
        original = Image.open(io.BytesIO(data)).convert("RGB")
        pixels = decode.decode_image(data, min_side=2 * size)
        canvas = Image.fromarray(decode.to_canvas(pixels, 2 * size))
        side = rng.uniform(0.4, 1.0) ** 0.5
        corner = rng.uniform(0, 1 - side, 2)
        window = np.concatenate([corner, corner + side])
        cut, wanted = (
            np.asarray(
                image.resize(
                    (size, size), Image.Resampling.BICUBIC, tuple(window * np.tile(image.size, 2))
                )
            )
            for image in (canvas, original)
        )
        differences.append(np.abs(cut.astype(float) - wanted).mean())
        energies.append(_gradient_energy(cut) / _gradient_energy(wanted))
    assert np.mean(differences) <= 1.0
    assert np.mean(energies) >= 0.95


def test_a_map_is_averaged_to_shrink_and_interpolated_to_grow():
    raster = np.arange(64.0).reshape(8, 8)
    means = raster.reshape(4, 2, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(decode.resize_map(raster, (4, 4)), means)
    assert decode.resize_map(raster, (8, 8)).dtype == np.float32
    ramp = decode.resize_map(np.array([[0.0, 4.0]]), (2, 4))
    np.testing.assert_allclose(ramp, [[0, 1, 3, 4]] * 2)  # pixel centres
