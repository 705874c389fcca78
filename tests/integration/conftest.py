# SPDX-License-Identifier: Apache-2.0
"""One tiny world for all tests of this folder."""

import pathlib

import pytest

from tests.integration.helpers import tiny_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Stores and tokenizer of a tiny run."""
    return tiny_world(tmp_path_factory.mktemp("world"))
