# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest
from PIL import Image

from input_pipeline.decode import DecodeError
from input_pipeline.image_spec import ImageSpec
from mtv_jax.interop.golden import golden_images
from mtv_jax.interop.preprocessing import read_image


def test_squashes_with_pillows_bicubic():
    image = golden_images()[1]
    expected = np.asarray(Image.fromarray(image).resize((40, 40), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(ImageSpec().squash(image, 40), expected)


def test_pixels_span_minus_one_to_one():
    values = np.array([0, 255, 100], np.uint8)
    for pixels in (ImageSpec().pixels(values), jax.jit(ImageSpec().pixels)(values)):
        assert pixels.dtype == np.float32
        np.testing.assert_array_equal(pixels[:2], [-1, 1])
        np.testing.assert_allclose(pixels[2], 100 / 127.5 - 1, rtol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_are_turned_upright(tmp_path, orientation):
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:4, :8] = 250  # bright at the upper left
    # The transposition that the tag asks a viewer to undo.
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), upright)


def test_pictures_of_other_modes_become_rgb():
    assert read_image(Image.new("L", (3, 2), 7)).tolist() == [[[7] * 3] * 3] * 2


def test_what_is_no_image_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(DecodeError):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"float32 \[4, 4, 3\], not uint8"):
        read_image(np.zeros((4, 4, 3), np.float32))
