# SPDX-License-Identifier: Apache-2.0
"""Makers of small dirty inputs."""

import io
import json
import pathlib
import tarfile
from collections.abc import Callable, Mapping

import cv2
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image.Image]:
    """A maker of smooth colour pictures that differ by seed."""

    def make(width: int = 96, height: int = 80, seed: int = 0) -> Image.Image:
        coarse = np.random.default_rng(seed).integers(0, 255, (6, 7, 3), np.uint8)
        return Image.fromarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))

    return make


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """An encoder: picture, format, options of Pillow."""

    def encode(image: Image.Image, image_format: str = "JPEG", **options) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, image_format, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def write_tar() -> Callable[..., pathlib.Path]:
    """A writer of tars: path, content by member name, dialect."""

    def write(
        path: pathlib.Path, members: Mapping[str, bytes], dialect: int = tarfile.USTAR_FORMAT
    ) -> pathlib.Path:
        with tarfile.open(path, "w", format=dialect) as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return path

    return write


@pytest.fixture(scope="session")
def sample_members() -> Callable[..., dict[str, bytes]]:
    """The three members that img2dataset writes for a sample."""

    def members(key: str, image: bytes, caption: str) -> dict[str, bytes]:
        metadata = json.dumps({"key": key, "caption": caption, "status": "success"})
        return {
            f"{key}.jpg": image,
            f"{key}.json": metadata.encode(),
            f"{key}.txt": caption.encode(),
        }

    return members
