# SPDX-License-Identifier: Apache-2.0
"""Which files a pattern names, and when they count as others."""

import os
import pathlib

import pytest

from mtv_jax.core.errors import UserError
from tools.data import archives, folders, sources


@pytest.fixture
def root(tmp_path):
    """Three images, two of them one folder down."""
    for name in ("a.jpg", "cats/b.PNG", "cats/c.webp"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "photos"


def _found(root):
    return [path.relative_to(root).as_posix() for path in sources.find_files(str(root))]


def _fingerprints(root):
    images = folders.claim(sources.find_files(str(root)))
    options = sources.Options(rows_per_shard=2)
    return [part.fingerprint() for part in folders.image_parts(images, root, options)]


def test_find_files(root, tmp_path):
    assert [p.name for p in sources.find_files(f"{root}/cats/*.webp")] == ["c.webp"]
    assert len(sources.find_files(f"{root}/**/*")) == 3
    strange = tmp_path / "[x]"
    strange.mkdir()
    (strange / "a.jpg").write_bytes(b"")
    assert len(sources.find_files(str(root))) == 3
    assert sources.find_files(str(strange)) == [strange / "a.jpg"]
    assert sources.find_files(str(tmp_path / "nothing")) == []


def test_hidden_files_and_folders_are_left_alone(root):
    (root / ".hidden.jpg").write_bytes(b"")
    (root / ".thumbnails").mkdir()
    (root / ".thumbnails/a.jpg").write_bytes(b"")
    assert _found(root) == ["a.jpg", "cats/b.PNG", "cats/c.webp"]


def test_linked_folders_are_followed_once(root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/d.jpg").write_bytes(b"d")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "cats/up").symlink_to(root)
    assert _found(root) == ["a.jpg", "cats/b.PNG", "cats/c.webp", "linked/d.jpg"]


def test_a_folder_that_cannot_be_read_is_named(root, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("cats"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=f"{root}/cats: Permission denied"):
        sources.find_files(str(root))


def test_the_folder_a_pattern_starts_from(root):
    assert sources.input_folder(str(root)) == root
    assert sources.input_folder(f"{root}/*/*.webp") == root
    assert sources.input_folder(f"{root}/a.jpg") == root
    assert sources.input_folder("*.jpg") == pathlib.Path(".")


def test_part_names_are_unique():
    assert sources.short_names([pathlib.Path("r/1/0.tar"), pathlib.Path("r/2/0.tar")]) == [
        "1/0.tar",
        "2/0.tar",
    ]
    assert sources.short_names([pathlib.Path("r/1/0.tar"), pathlib.Path("r/2/1.tar")]) == ["0", "1"]


def test_fingerprint_follows_content(root):
    before = _fingerprints(root)
    assert len(before) == 2 and before == _fingerprints(root)
    (root / "cats/c.webp").write_bytes(b"longer than it was")
    after = _fingerprints(root)
    assert after[0] == before[0] and after[1] != before[1]
    (root / "t.csv").write_text("file,caption\na.jpg,one\n")
    assert _fingerprints(root)[0] != before[0]


@pytest.mark.parametrize("suffix", [".txt", ".json"])
def test_fingerprint_follows_captions_beside_the_images(root, suffix):
    caption = root / f"a{suffix}"
    seen = [_fingerprints(root)]
    for text in ("one", "two"):
        caption.write_text(text)
        os.utime(caption, ns=(0, len(seen)))
        seen.append(_fingerprints(root))
    caption.unlink()
    assert len({first for first, _ in seen}) == 3 and len({second for _, second in seen}) == 1
    assert _fingerprints(root) == seen[0]


def test_fingerprint_follows_tars_rewritten_at_the_same_size(tmp_path):
    part = archives.ArchivePart("0", tmp_path / "0.tar")
    seen = []
    for name in ("0.tar", "0.tar", "0.parquet"):
        (tmp_path / name).write_bytes(b"same size")
        os.utime(tmp_path / name, ns=(0, len(seen)))
        seen.append(part.fingerprint())
    assert len(set(seen)) == 3


@pytest.mark.parametrize("pattern", ["", "/*.jpg"])
def test_dangling_links_come_through(root, pattern):
    (root / "z.jpg").symlink_to(root / "nowhere.jpg")
    images = sources.find_files(f"{root}{pattern}")
    (part,) = folders.image_parts(images, root, sources.Options())
    assert "z.jpg" in {image.path.name for image in part.images}
    before = part.fingerprint()
    (root / "nowhere.jpg").write_bytes(b"")
    assert part.fingerprint() != before
