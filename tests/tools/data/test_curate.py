# SPDX-License-Identifier: Apache-2.0
"""What is stored of an image, and why one is not."""

import random

import numpy as np
import pytest
from PIL import Image

from input_pipeline import decode
from tools.data.curate import Limits, Rejected, curate

_LIMITS = Limits(min_side=32, max_side=128)


def _reason(data, limits=_LIMITS):
    with pytest.raises(Rejected) as caught:
        curate(data, limits)
    return str(caught.value)


def _near(pixels, wanted, tolerance=2.5):
    return np.abs(pixels.astype(float) - np.asarray(wanted, float)).mean() <= tolerance


@pytest.mark.parametrize("progressive", [False, True])
def test_good_jpeg_keeps_its_bytes(picture, encoded, progressive):
    data = encoded(picture(), progressive=progressive)
    stored = curate(data, _LIMITS)
    assert (stored.data, stored.height, stored.width, stored.changes) == (data, 80, 96, ())


def test_bytes_after_the_end_of_a_jpeg_are_not_kept(picture, encoded):
    stored = curate(encoded(picture()) + b"PK\x03\x04 something else", _LIMITS)
    assert b"something" not in stored.data
    assert stored.changes == ("reencoded",)
    assert _near(decode.decode_image(stored.data), picture())


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_the_pixels(picture, encoded, image_format, orientation):
    upright = picture(96, 64)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that makes it lie so
    turned = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = curate(encoded(turned, image_format, exif=exif), _LIMITS)
    assert (stored.height, stored.width) == (64, 96)
    assert ("upright" in stored.changes) == (orientation > 1)
    assert _near(decode.decode_image(stored.data), upright, 12)
    assert Image.open(decode.io.BytesIO(stored.data)).getexif().get(0x0112, 1) in (1, None)


@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_jpeg_of_other_colours_becomes_rgb(picture, encoded, mode):
    source = picture().convert(mode)
    stored = curate(encoded(source, quality=95), _LIMITS)
    assert stored.changes == (f"from_{mode.lower()}",)
    assert Image.open(decode.io.BytesIO(stored.data)).mode == "RGB"
    assert _near(decode.decode_image(stored.data), source.convert("RGB"), 4)


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_an_orientation_from_elsewhere_is_for_images_that_have_none(picture, encoded, image_format):
    upright, exif = picture(), Image.Exif()
    exif[0x0112] = 6
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    for source in (encoded(turned, image_format), encoded(turned, image_format, exif=exif)):
        stored = curate(source, _LIMITS, orientation=6)
        assert "upright" in stored.changes
        assert _near(decode.decode_image(stored.data), upright, 4)
    exif[0x0112] = 1
    lying = curate(encoded(turned, image_format, exif=exif), _LIMITS, orientation=6)
    assert "upright" not in lying.changes


@pytest.mark.parametrize("mode", ["P", "L", "1", "LA", "RGBA"])
def test_png_of_any_mode_becomes_rgb(picture, encoded, mode):
    source = picture().convert(mode)
    stored = curate(encoded(source, "PNG"), _LIMITS)
    assert stored.changes[:2] == ("from_png", f"from_{mode.lower()}")
    assert _near(decode.decode_image(stored.data), source.convert("RGB"), 4)


def test_transparent_pixels_become_white(picture, encoded):
    source = picture().convert("RGBA")
    source.putalpha(Image.new("L", source.size, 0))
    stored = curate(encoded(source, "PNG"), _LIMITS)
    assert "over_white" in stored.changes
    assert (decode.decode_image(stored.data) == 255).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_16_bit_gray_is_scaled_by_the_bits_in_use(encoded, bits):
    top = 2**bits - 1
    ramp = np.tile(np.linspace(0, top, 64).astype(np.uint16), (48, 1))
    stored = curate(encoded(Image.fromarray(ramp), "PNG"), _LIMITS)
    assert stored.changes == ("from_png", "from_16bit")
    assert _near(decode.decode_image(stored.data)[:, :, 0], np.round(ramp * (255 / top)), 1)


def test_first_frame_of_an_animation(picture, encoded):
    frames = [picture(seed=seed) for seed in range(3)]
    stored = curate(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), _LIMITS)
    assert {"from_gif", "first_frame"} <= set(stored.changes)
    assert _near(decode.decode_image(stored.data), frames[0], 12)


@pytest.mark.parametrize(
    ("size", "stored_size", "change"),
    [
        ((128, 32), (128, 32), ()),
        ((400, 300), (128, 96), ("downscaled",)),
        ((300, 400), (96, 128), ("downscaled",)),
        ((512, 128), (128, 32), ("downscaled",)),
        ((20, 16), (40, 32), ("enlarged",)),
        ((7, 7), (32, 32), ("enlarged",)),
        ((4000, 3000), (128, 96), ("downscaled",)),
    ],
)
def test_sizes(picture, encoded, size, stored_size, change):
    stored = curate(encoded(picture(*size), quality=95, subsampling=0), _LIMITS)
    assert (stored.width, stored.height) == stored_size
    assert stored.changes == change
    pixels = decode.decode_image(stored.data)
    assert pixels.shape == (*stored_size[::-1], 3)
    assert _near(pixels, picture(*size).resize(stored_size, Image.Resampling.LANCZOS), 6)


@pytest.mark.parametrize(
    ("size", "limits", "reason"),
    [
        ((7, 5), _LIMITS, "too_small"),
        ((31, 31), Limits(32, 128, max_enlarge=1), "too_small"),
        ((512, 9), _LIMITS, "extreme_aspect"),
        ((9, 512), _LIMITS, "extreme_aspect"),
        ((129, 32), _LIMITS, "extreme_aspect"),
    ],
)
def test_sizes_that_are_not_stored(picture, encoded, size, limits, reason):
    assert _reason(encoded(picture(*size)), limits) == reason


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg(picture, encoded, mode, progressive):
    data = encoded(picture().convert(mode), quality=95, progressive=progressive)
    for kept in (len(data) - 2, len(data) * 9 // 10, len(data) // 2, 180):
        assert _reason(data[:kept]) == "truncated"
    assert _reason(data[: len(data) // 2] + b"\xff\xd9") == "truncated"


@pytest.mark.parametrize("image_format", ["PNG", "GIF", "BMP"])
def test_truncation_of_other_formats(picture, encoded, image_format):
    data = encoded(picture(), image_format)
    assert _reason(data[: len(data) // 2]) == "truncated"


def test_other_reasons(encoded):
    assert _reason(b"") == "empty_image"
    assert _reason(b"<html>404</html>") == "not_an_image"
    assert _reason(encoded(Image.new("F", (64, 64)), "TIFF")) == "unsupported_pixels"
    negative = Image.fromarray(np.full((64, 64), -1, np.int32))
    assert _reason(encoded(negative, "TIFF")) == "unsupported_pixels"
    assert _reason(encoded(Image.new("1", (20_000, 20_000)), "PNG")) == "too_many_pixels"


@pytest.mark.filterwarnings("ignore")
def test_damage_of_any_kind_gives_an_image_or_a_reason(picture, encoded):
    """Random damage raises nothing else, and what comes out is within the limits."""
    exif = Image.Exif()
    exif[0x0112] = 6
    sources = [encoded(picture(), f, exif=exif) for f in ("JPEG", "PNG", "WEBP", "TIFF")]
    sources += [encoded(picture().convert("P"), "GIF"), encoded(picture(), "BMP")]
    chance = random.Random(0)
    outcomes = set()
    for source in sources * 25:
        damaged = bytearray(source)
        for _ in range(chance.randrange(1, 5)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            stored = curate(bytes(damaged), _LIMITS)
        except Rejected as rejected:
            outcomes.add(str(rejected))
        else:
            outcomes.add("stored")
            assert decode.decode_image(stored.data).shape == (stored.height, stored.width, 3)
            assert min(stored.height, stored.width) >= 32
            assert max(stored.height, stored.width) <= 128
    assert {"stored", "damaged"} <= outcomes
