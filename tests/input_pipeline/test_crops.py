# SPDX-License-Identifier: Apache-2.0
"""Crops of images and maps: what belongs together stays together."""

import cv2
import numpy as np
import pytest

from input_pipeline.crops import GRAY, Crops, Cut, short_side
from input_pipeline.eval_data import IGNORED
from input_pipeline.image_spec import SIGLIP_IMAGES

SIDE = 16


def chart(height: int = 40, width: int = 60) -> Cut:
    """An image whose colour tells the class of each pixel: 6 x 4 fields of 10 pixels."""
    rows, columns = np.mgrid[:height, :width] // 10
    target = (rows * 6 + columns).astype(np.uint8)
    return Cut(np.repeat(target[..., None] * 8, 3, axis=-1), target)


def cut(crops: Crops, whole: Cut, seed: int = 0, outside: float = IGNORED) -> Cut:
    return crops.cut(np.random.default_rng(seed), SIGLIP_IMAGES, whole, outside=outside)


def disagreement(found: Cut) -> float:
    """Share of known pixels whose colour is not their class's, borders of fields aside."""
    known = (found.target != IGNORED) & (cv2.dilate(found.target, np.ones((5, 5))) == found.target)
    known &= cv2.erode(found.target, np.ones((5, 5))) == found.target
    assert known.sum() > 20
    return float((np.abs(found.image[..., 0] / 8 - found.target)[known] > 0.6).mean())


@pytest.mark.parametrize(
    "crops",
    [
        Crops(height=SIDE, width=SIDE + 4),
        Crops(height=40, width=40, resize="squash"),
        Crops(height=32, width=32, resize="short", ratio=(0.8, 2.0)),
        Crops(height=30, width=44, degrees=20.0),
        Crops(height=64, width=64, flip=1.0),
    ],
    ids=str,
)
def test_image_and_map_go_together(crops):
    """Under every resize, turn, crop and flip, for many draws."""
    for seed in range(8):
        found = cut(crops, chart(), seed)
        assert found.image.shape == (crops.height, crops.width, 3)
        assert found.target.shape == (crops.height, crops.width)
        assert found.image.dtype == np.uint8 and found.target.dtype == np.uint8
        assert disagreement(found) < 0.02


def test_the_same_seed_draws_the_same_and_another_does_not():
    crops = Crops(height=SIDE, width=SIDE, resize="short", ratio=(0.5, 2.0), colour="distort")
    first, again, other = (cut(crops, chart(), seed).image for seed in (3, 3, 4))
    assert (first == again).all() and (first != other).any()


def test_what_reaches_beyond_the_image_is_gray_and_ignored():
    found = cut(Crops(height=50, width=70, flip=0.0), chart())
    assert (found.target[:40, :60] == chart().target).all()
    assert (found.target[40:] == IGNORED).all() and (found.target[:, 60:] == IGNORED).all()
    assert (found.image[40:] == GRAY).all() and (found.image[:40, :60] == chart().image).all()


def test_what_fills_a_crop_up_keeps_its_colour():
    """Published code fills up after recolouring: the encoder sees one gray, below and right."""
    crops = Crops(height=50, width=70, colour="distort")
    for seed in range(12):
        found = cut(crops, chart(), seed)
        assert (found.image[40:] == GRAY).all() and (found.image[:, 60:] == GRAY).all()
        assert (found.target[40:] == IGNORED).all() and (found.target[:40, :60] != IGNORED).all()


def test_half_are_turned_and_corners_are_unknown():
    crops = Crops(height=40, width=60, degrees=45.0, flip=0.0)
    depth = chart().target.astype(np.float32) + 1
    whole = Cut(chart().image, depth)
    found = [cut(crops, whole, seed, outside=0.0) for seed in range(60)]
    turned = [f for f in found if (f.target != depth).any()]
    assert 20 < len(turned) < 40
    assert all(f.target.dtype == np.float32 and (f.target == 0).any() for f in turned)
    beyond = np.concatenate([f.image[f.target == 0] for f in turned])
    assert len(beyond) > 1000 and (np.abs(beyond.astype(int) - GRAY) <= 1).mean() > 0.8


def test_images_are_turned_about_their_middle_either_way():
    target = np.zeros((41, 61), np.float32)
    target[17:24, 27:34] = 1.0  # the middle
    target[20, 50:] = 2.0
    whole = Cut(np.zeros((41, 61, 3), np.uint8), target)
    crops = Crops(height=41, width=61, degrees=30.0, flip=0.0)
    found = [cut(crops, whole, seed, outside=-1.0).target for seed in range(40)]
    assert {value for t in found for value in np.unique(t)} == {-1.0, 0.0, 1.0, 2.0}
    for turned in found:
        assert np.argwhere(turned == 1.0).mean(axis=0) == pytest.approx([20, 30], abs=0.1)
    ends = [np.argwhere(turned == 2.0)[:, 0].mean() for turned in found]
    assert min(ends) < 16 and max(ends) > 24


def test_flips_are_as_frequent_as_asked():
    flipped = [
        (cut(Crops(height=40, width=60, flip=0.25), chart(), seed).target != chart().target).any()
        for seed in range(200)
    ]
    assert 30 < sum(flipped) < 70


def test_the_short_side_is_drawn_from_the_range():
    """Fields of 10 pixels of 40 become 5 to 20 of a short side of 20 to 80."""
    crops = Crops(height=40, width=40, resize="short", ratio=(0.5, 2.0), flip=0.0)
    kinds = [len(np.unique(cut(crops, chart(), seed).target)) for seed in range(30)]
    assert min(kinds) <= 9 and max(kinds) >= 20
    wide = Crops(height=40, width=60, resize="short", flip=0.0)
    assert (cut(wide, chart()).target == chart().target).all(), "short side to short side"


@pytest.mark.parametrize("unknown", [0, 9], ids="{} rows of 10 unknown".format)
def test_a_crop_of_one_class_is_drawn_again(unknown):
    """A tenth of the image has classes; most crops show the ground only."""
    target = np.zeros((40, 400), np.uint8)
    target[:, :40] = np.arange(40)[:, None]
    target[np.arange(40) % 10 > 9 - unknown] = IGNORED
    whole = Cut(np.zeros((40, 400, 3), np.uint8), target)

    def share(one_class: float) -> float:
        crops = Crops(height=40, width=40, one_class=one_class)
        found = [cut(crops, whole, seed).target for seed in range(60)]
        return float(np.mean([(t[t != IGNORED] == 0).mean() <= 0.75 for t in found]))

    assert share(1.0) < 0.3 < 0.45 < share(0.75)


def test_a_crop_of_nothing_known_is_drawn_again():
    target = np.full((40, 400), IGNORED, np.uint8)
    target[:, :40] = np.arange(40)[:, None]
    whole = Cut(np.zeros((40, 400, 3), np.uint8), target)
    crops = Crops(height=40, width=40, one_class=0.75)
    assert np.mean([(cut(crops, whole, s).target != IGNORED).any() for s in range(60)]) > 0.55


def test_sizes_keep_their_aspect_within_limits():
    assert short_side((40, 60), 20) == (20, 30)
    assert short_side((600, 40), 20) == (80, 5), "the long side is at most four short ones"
    assert short_side((3, 1000), 1) == (1, 4)


@pytest.mark.parametrize(("colour", "unchanged"), [("none", (1, 1)), ("tint", (0.3, 0.7)),
                                                   ("distort", (0.0, 0.2))])  # fmt: skip
def test_colours_change_and_maps_do_not(colour, unchanged):
    whole = Cut(
        np.random.default_rng(0).integers(20, 200, (12, 12, 3)).astype(np.uint8),
        np.arange(144, dtype=np.uint8).reshape(12, 12),
    )
    crops = Crops(height=12, width=12, colour=colour, flip=0.0)
    found = [cut(crops, whole, seed) for seed in range(40)]
    assert all((f.target == whole.target).all() for f in found)
    same = np.mean([(np.abs(f.image.astype(int) - whole.image) <= 1).all() for f in found])
    assert unchanged[0] <= same <= unchanged[1]
    means = [f.image.mean() for f in found]
    assert (np.std(means) > 2) == (colour != "none")


def recoloured(colour: str, *pixels: tuple[int, int, int]) -> np.ndarray:
    """What becomes of some pixels in 400 draws, [400, n, 3], in [0, 255]."""
    image = np.asarray([pixels], np.uint8)
    whole = Cut(image, np.zeros(image.shape[:2], np.uint8))
    crops = Crops(height=1, width=len(pixels), colour=colour, flip=0.0)
    return np.stack([cut(crops, whole, seed).image[0] for seed in range(400)]).astype(float)


def test_distortion_is_mmsegmentations():
    """Gray tells brightness (32 up or down) and contrast (half to one and a half), red the rest."""
    gray = recoloured("distort", (128, 128, 128))[:, 0, 0]
    assert 47 <= gray.min() < 60 and 200 < gray.max() <= 240
    assert 0.18 < (gray == 128).mean() < 0.32, "neither of two"
    red = recoloured("distort", (200, 100, 100))[:, 0]
    assert (red.argmax(axis=1) == 0).all(), "hue by up to 36 degrees"
    assert 0.15 < (red[:, 1] > red[:, 2] + 5).mean() < 0.35
    assert 0.15 < (red[:, 2] > red[:, 1] + 5).mean() < 0.35
    saturation = 1 - red.min(axis=1) / red.max(axis=1)
    own_hue = np.abs(red[:, 1] - red[:, 2]) <= 1
    assert saturation[own_hue].min() < 0.35 and saturation[own_hue].max() > 0.65


def test_tints_are_bts():
    dark, bright = np.moveaxis(recoloured("tint", (60, 60, 60), (120, 120, 120)), 1, 0)
    factors = bright.mean(axis=1) / 120
    assert 0.62 < factors.min() < 0.8 and 1.25 < factors.max() < 1.49, "brightness"
    gamma = np.log2(bright.mean(axis=1) / dark.mean(axis=1))
    assert 0.86 < gamma.min() < 0.94 and 1.06 < gamma.max() < 1.14
    assert 0.4 < (gamma == 1).mean() < 0.6, "half are left alone"
    colours = bright.max(axis=1) / bright.min(axis=1)
    assert 1.1 < colours.max() < 1.25


def test_a_map_of_another_size_is_brought_to_the_images():
    small = Cut(chart().image, chart().target[5::10, 5::10])
    found = cut(Crops(height=40, width=60, flip=0.0), small)
    assert (found.target == chart().target).all()
