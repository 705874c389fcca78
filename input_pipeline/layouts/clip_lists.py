# SPDX-License-Identifier: Apache-2.0
"""CLIP's class names and prompts of ImageNet, as the package open_clip ships them.

It has no list of the 81 prompts that big_vision calls `clip_paper`: they are `{}`, the bare name,
after OpenAI's 80.
"""

import functools
import importlib.util
import pathlib
from typing import Any

from mtv_jax.core.errors import UserError


def clip_list(name: str) -> list[str]:
    """`IMAGENET_CLASSNAMES`, `OPENAI_IMAGENET_TEMPLATES` or `SIMPLE_IMAGENET_TEMPLATES`.

    Templates have one `{}`.

    Raises:
        UserError: open_clip is not installed, or has no such list.
    """
    try:
        entries = getattr(_metadata(), name)
    except AttributeError as error:
        raise UserError(f"open_clip has no list {name}") from error
    return [entry("{}") if callable(entry) else entry for entry in entries]


@functools.cache
def _metadata() -> Any:
    """The package's module of lists by itself: the package imports PyTorch."""
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        raise UserError(
            "CLIP's class names and prompts come with the package open_clip: "
            "pip install --no-deps open_clip_torch"
        )
    path = pathlib.Path(package.origin).with_name("zero_shot_metadata.py")
    spec = importlib.util.spec_from_file_location("open_clip_zero_shot_metadata", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"{path} is missing; install open_clip_torch 2.23 or later")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
