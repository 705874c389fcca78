# SPDX-License-Identifier: Apache-2.0
"""Equal and similar images, against the plain way of finding them."""

import io

import numpy as np
import pytest
from PIL import Image

from mtv_jax.core.errors import UserError
from tools.data import duplicates


def _one_by_one(hashes, distance):
    """What `nearly_repeated` is to find, by comparing each with all that stay before it."""
    stay, gone = [], []
    for value in hashes:
        near = (np.bitwise_count(np.array(stay, np.uint64) ^ value) <= distance).any()
        gone.append(bool(near))
        stay += [] if near else [value]
    return np.array(gone)


def _hashes(seed=0):
    """Random ones, chains of neighbours one bit apart, many equal ones, and a crowded corner."""
    rng = np.random.default_rng(seed)
    spread = rng.integers(0, 1 << 63, 150, np.uint64)
    chained = [spread]
    for _ in range(6):
        chained.append(chained[-1] ^ (np.uint64(1) << rng.integers(0, 64, 150).astype(np.uint64)))
    crowd = rng.integers(0, 1 << 9, 200).astype(np.uint64)
    hashes = np.concatenate([*chained, crowd, np.full(300, 7, np.uint64)])
    return rng.permutation(hashes)


@pytest.mark.parametrize("long_run", [64, 1024])
@pytest.mark.parametrize("distance", [0, 1, 2, 4, 6])
def test_the_same_as_one_by_one(monkeypatch, distance, long_run):
    monkeypatch.setattr(duplicates, "_LONG_RUN", long_run)
    hashes = _hashes()
    np.testing.assert_array_equal(
        duplicates.nearly_repeated(hashes, distance), _one_by_one(hashes, distance)
    )


def test_small_chunks_change_nothing(monkeypatch):
    hashes = _hashes(1)
    whole = duplicates.nearly_repeated(hashes, 4)
    monkeypatch.setattr(duplicates, "_CHUNK", 50)
    np.testing.assert_array_equal(duplicates.nearly_repeated(hashes, 4), whole)


def test_a_chain_does_not_take_out_its_far_end():
    chain = np.array([0, 0b11, 0b1111, 0b111111], np.uint64)
    gone = duplicates.nearly_repeated(chain, 2)
    np.testing.assert_array_equal(gone, [False, True, False, True])


def test_a_million_equal_hashes_are_one():
    """All pairs of them would be 5e11."""
    gone = duplicates.nearly_repeated(np.full(1_000_000, 3, np.uint64), 4)
    assert not gone[0] and gone[1:].all()


def test_pairs_are_found_exactly_once():
    hashes = np.unique(_hashes(2))
    pairs = duplicates._near_pairs(hashes, 4, duplicates._ALL_BITS, lambda done: None)
    assert len(pairs) > 100 and len(np.unique(pairs, axis=0)) == len(pairs)


def test_too_many_pairs_are_refused(monkeypatch):
    monkeypatch.setattr(duplicates, "_MAX_PAIRS", 10)
    with pytest.raises(UserError, match="more than 10 pairs of images within 4 bits"):
        duplicates.nearly_repeated(_hashes(), 4)


def test_progress_counts_the_tables():
    seen = []
    duplicates.nearly_repeated(_hashes(), 4, seen.append)
    assert seen == list(range(1, duplicates.num_tables(4) + 1))


def test_repeated():
    values = np.array([5, 3, 5, 5, 3, 1])
    np.testing.assert_array_equal(duplicates.repeated(values), [0, 0, 1, 1, 1, 0])


def test_a_smaller_copy_is_near_and_another_picture_is_not(picture, encoded):
    pytest.importorskip("imagehash")

    def value(image, **options):
        return np.uint64(
            duplicates.perceptual_hash({"image": [encoded(image, "JPEG", **options)]})[0]
        )

    original = value(picture(640, 480, seed=1), quality=95)
    smaller = value(picture(640, 480, seed=1).resize((320, 240)), quality=60)
    other = value(picture(640, 480, seed=2), quality=95)
    assert np.bitwise_count(original ^ smaller) <= 4
    assert np.bitwise_count(original ^ other) > 10


def test_the_reduced_decode_hardly_shows():
    """Fine grain, where too coarse a decode gives another hash."""
    package = pytest.importorskip("imagehash")
    rng = np.random.default_rng(0)
    for _ in range(5):
        grain = Image.fromarray(rng.integers(0, 255, (700, 900, 3), np.uint8))
        buffer = io.BytesIO()
        grain.save(buffer, "JPEG", quality=90)
        (found,) = duplicates.perceptual_hash({"image": [buffer.getvalue()]})
        whole = np.packbits(package.phash(Image.open(buffer)).hash).tobytes()
        assert (found ^ int.from_bytes(whole, "big")).bit_count() <= 8


def test_no_image_is_an_error():
    for columns in ({}, {"image": np.zeros(3, np.float32)}):
        with pytest.raises(ValueError, match="no image"):
            duplicates.digest(columns)
