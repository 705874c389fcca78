# SPDX-License-Identifier: Apache-2.0
"""CLIP's lists, from a package that is not imported."""

import pytest

from input_pipeline.layouts import clip_lists
from mtv_jax.core.errors import UserError


@pytest.fixture
def no_lists(monkeypatch):
    clip_lists._metadata.cache_clear()
    yield monkeypatch
    clip_lists._metadata.cache_clear()


def test_clips_lists_are_read_from_the_package(no_lists, tmp_path):
    """Without importing it: the package itself needs PyTorch."""
    package = tmp_path / "open_clip"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('torch')")
    (package / "zero_shot_metadata.py").write_text(
        "IMAGENET_CLASSNAMES = ['tench', 'goldfish']\n"
        "OPENAI_IMAGENET_TEMPLATES = (lambda c: f'a bad photo of a {c}.',)\n"
    )
    no_lists.syspath_prepend(str(tmp_path))
    assert clip_lists.clip_list("IMAGENET_CLASSNAMES") == ["tench", "goldfish"]
    assert clip_lists.clip_list("OPENAI_IMAGENET_TEMPLATES") == ["a bad photo of a {}."]
    with pytest.raises(UserError, match="open_clip has no list CAR"):
        clip_lists.clip_list("CAR")


def test_without_the_package_the_remedy_is_named(no_lists):
    no_lists.setattr(clip_lists.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps open_clip_torch"):
        clip_lists.clip_list("IMAGENET_CLASSNAMES")
