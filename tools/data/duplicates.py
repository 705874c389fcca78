# SPDX-License-Identifier: Apache-2.0
"""Images that occur twice: byte by byte, or in what is seen of them.

What is seen is the perceptual hash of 64 bits by `imagehash`: which of the lowest frequencies of
the gray image are above their median. Which hashes are within d bits of each other is found
exactly, without comparing all of them: cut into d + 2 bands, two such hashes agree in at least two
bands, so only those that share two bands are compared. Equal hashes are one before that, however
many there are, and a long run of hashes that share two bands is cut into bands once more. It takes
about 64 bytes of memory a hash, and 16 a pair that is found.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from input_pipeline import decode, example
from mtv_jax.core.errors import UserError
from mtv_jax.core.fields import IMAGE
from tools.data import digests

MAX_DISTANCE = 10
# Decoded at a reduced scale for at least this side, the hash of a large JPEG differs from that of
# the full decode in at most 2 bits; for 32 it was up to 28.
_HASH_SIDE = 128
_LONG_RUN = 1024  # hashes that share two bands; more are cut into bands again, once
_CHUNK = 1 << 22  # comparisons at a time
_MAX_PAIRS = 1 << 29  # 8 GiB
_ALL_BITS = (1 << 64) - 1


def digest(columns: Mapping[str, example.Column]) -> tuple[int]:
    """A hash of the stored bytes.

    Raises:
        ValueError: there is no image.
    """
    return (digests.of_bytes(_image(columns)),)


def perceptual_hash(columns: Mapping[str, example.Column]) -> tuple[int]:
    """`imagehash.phash` of the image as 64 bits.

    Raises:
        ValueError: there is no image, or none that can be decoded.
    """
    pixels = decode.decode_image(_image(columns), min_side=_HASH_SIDE)
    bits = imagehash().phash(Image.fromarray(pixels)).hash
    return (int.from_bytes(np.packbits(bits).tobytes(), "big"),)


def imagehash() -> Any:
    """The package; a UserError where it is not installed."""
    try:
        import imagehash as package
    except ImportError as error:
        raise UserError("--near_duplicates needs `pip install imagehash py3langid`") from error
    return package


def _image(columns: Mapping[str, example.Column]) -> bytes:
    values = columns.get(IMAGE.name)
    if not isinstance(values, list) or len(values) != 1:
        raise ValueError("no image")
    return values[0]


def repeated(values: np.ndarray) -> np.ndarray:
    """bool [n]: whether an equal value stands before this one."""
    first = np.unique(values, return_index=True)[1]
    again = np.ones(len(values), bool)
    again[first] = False
    return again


def nearly_repeated(
    hashes: np.ndarray, distance: int, on_progress: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """Which hashes are taken out, so that no two that stay are within `distance` bits.

    In order: a hash goes when one before it, that stays, is within `distance` bits. So a chain of
    small differences does not take out its far end.

    Args:
        hashes: uint64 [n].
        distance: in bits, 0 to `MAX_DISTANCE`.
        on_progress: told how many of the `num_tables` are done.

    Returns:
        bool [n].

    Raises:
        UserError: more near pairs than memory is meant for.
    """
    first = np.sort(np.unique(hashes, return_index=True)[1])
    pairs = _near_pairs(hashes[first], distance, _ALL_BITS, on_progress)
    gone = np.ones(len(hashes), bool)
    gone[first] = _after_one_that_stays(len(first), pairs)
    return gone


def num_tables(distance: int) -> int:
    """How many times the hashes are sorted."""
    return (distance + 2) * (distance + 1) // 2 if distance else 0


def _after_one_that_stays(number: int, pairs: np.ndarray) -> np.ndarray:
    """bool [number]: whether each is paired with an earlier one for which this is false."""
    gone = np.zeros(number, bool)
    while len(pairs):
        waits = np.zeros(number, bool)
        waits[pairs[:, 1]] = True
        stays = ~waits[pairs[:, 0]]
        gone[pairs[stays, 1]] = True
        pairs = pairs[~gone[pairs].any(1)]
    return gone


def _near_pairs(
    hashes: np.ndarray, distance: int, free: int, on_progress: Callable[[int], None]
) -> np.ndarray:
    """Pairs i < j of distinct hashes within `distance` bits: int64 [p, 2], each once.

    `free` are the bits in which the hashes may differ.
    """
    bands = _bands(free, distance + 2)
    found = [np.zeros((0, 2), np.int64)]
    couples = itertools.combinations(range(len(bands)), 2) if distance else ()
    for number, (first, second) in enumerate(couples, 1):
        earlier = [band for index, band in enumerate(bands[:second]) if index != first]
        key = bands[first] | bands[second]
        for pairs in _pairs_that_share(hashes, distance, key, free):
            differ = hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]
            fresh = np.ones(len(pairs), bool)  # not found by a table before this one
            for band in earlier:
                fresh &= differ & np.uint64(band) != 0
            found.append(pairs[fresh])
        if sum(map(len, found)) > _MAX_PAIRS:
            raise UserError(
                f"more than {_MAX_PAIRS:,} pairs of images within {distance} bits: give "
                "--near_duplicates fewer bits, or 0 for equal hashes only"
            )
        on_progress(number)
    return np.concatenate(found)


def _bands(free: int, number: int) -> list[int]:
    """The bits of `free` dealt out to `number` masks."""
    bits = [bit for bit in range(64) if free >> bit & 1]
    return [sum(1 << int(bit) for bit in part) for part in np.array_split(bits, number)]


def _pairs_that_share(
    hashes: np.ndarray, distance: int, key: int, free: int
) -> Iterator[np.ndarray]:
    """Near pairs among the hashes that agree in all bits of `key`: int64 [p, 2]."""
    keys = hashes & np.uint64(key)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    ends = np.append(starts[1:], len(keys))
    if free == _ALL_BITS:
        for run in np.flatnonzero(ends - starts > _LONG_RUN):
            members = order[starts[run] : ends[run]]
            yield members[_near_pairs(hashes[members], distance, free & ~key, lambda done: None)]
        ends = np.where(ends - starts > _LONG_RUN, starts + 1, ends)
    for runs in _chunks(ends - starts):
        yield from _pairs_in_runs(hashes, distance, order, np.stack([starts, ends], 1)[runs])


def _chunks(lengths: np.ndarray) -> Iterator[slice]:
    """Slices of the runs, of about `_CHUNK` hashes each."""
    cuts = np.flatnonzero(np.diff(np.cumsum(lengths) // _CHUNK)) + 1
    yield from itertools.starmap(slice, itertools.pairwise([0, *cuts.tolist(), len(lengths)]))


def _pairs_in_runs(
    hashes: np.ndarray, distance: int, order: np.ndarray, runs: np.ndarray
) -> Iterator[np.ndarray]:
    """Near pairs inside runs (start, end) of `order`: with the next, the next but one, …"""
    runs = runs[runs[:, 1] - runs[:, 0] > 1]
    lengths = runs[:, 1] - runs[:, 0]
    ends = np.repeat(runs[:, 1], lengths)
    places = np.arange(len(ends)) + np.repeat(runs[:, 0] - (np.cumsum(lengths) - lengths), lengths)
    for shift in itertools.count(1):
        inside = places + shift < ends
        places, ends = places[inside], ends[inside]
        if not len(places):
            return
        one, other = order[places], order[places + shift]
        near = np.bitwise_count(hashes[one] ^ hashes[other]) <= distance
        yield np.stack([one[near], other[near]], 1)
