# SPDX-License-Identifier: Apache-2.0
"""What the tests of all readers share."""

import pytest

from tests.input_pipeline.layouts.readers import LAYOUTS


@pytest.fixture
def made(request, tmp_path):
    """The reader of a fresh tree."""
    make, reader, _ = LAYOUTS[request.param]
    make(tmp_path)
    return reader(root=str(tmp_path))
