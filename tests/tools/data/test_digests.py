# SPDX-License-Identifier: Apache-2.0
"""One digest, alone or of many: what was measured with it is kept, so it must not change."""

import numpy as np

from tools.data import digests


def test_the_digest_does_not_change():
    assert digests.of_bytes(b"a dog") == 0xC75A225A66E602FE


def test_many_are_digested_as_one_is():
    items = [b"", b"a", b"\xff" * 100]
    found = digests.of_each(items)
    assert found.dtype == np.uint64 and found.tolist() == [digests.of_bytes(item) for item in items]
    assert digests.of_each([]).shape == (0,)
