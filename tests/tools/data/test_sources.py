# SPDX-License-Identifier: Apache-2.0
"""Which files `--input` names, and when they count as others."""

import os
import pathlib

import pytest

from mtv_jax.core.errors import UserError
from tools.data import sources
from tools.data.folders import list_images


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
    images = list_images(sources.find_files(str(root)), root, None)
    return [part.fingerprint() for part in sources.image_parts(images, 2)]


def test_find_files(root, tmp_path):
    assert [p.name for p in sources.find_files(f"{root}/cats/*.webp")] == ["c.webp"]
    assert len(sources.find_files(f"{root}/**/*")) == 3
    strange = tmp_path / "[x]"
    strange.mkdir()
    (strange / "a.jpg").write_bytes(b"")
    assert len(sources.find_files(str(root))) == 3
    assert sources.find_files(str(strange)) == [strange / "a.jpg"]
    for pattern in (str(tmp_path / "nothing"), str(tmp_path / "*.tar")):
        with pytest.raises(UserError, match=r"matches no \.tar and no image"):
            sources.find_files(pattern)
    (root / "x.tar").write_bytes(b"")
    with pytest.raises(UserError, match="both tars"):
        sources.find_files(str(root))


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


def test_files_passed_over_are_counted(root, capsys):
    for name in ("1.heic", "cats/2.HEIC", "README", "a.txt", "a.json", "t.csv", "t.tsv"):
        (root / name).write_text("")
    assert len(sources.find_files(str(root))) == 3
    assert capsys.readouterr().err == f"note: {root}: passed over 1 without suffix, 2 .heic\n"


def test_the_folder_a_pattern_starts_from(root):
    assert sources.input_folder(str(root)) == root
    assert sources.input_folder(f"{root}/*/*.webp") == root
    assert sources.input_folder(f"{root}/a.jpg") == root
    assert sources.input_folder("*.jpg") == pathlib.Path(".")


def test_part_names_are_unique():
    parts = sources.archive_parts([pathlib.Path("r/1/0.tar"), pathlib.Path("r/2/0.tar")])
    assert [part.name for part in parts] == ["1/0.tar", "2/0.tar"]
    parts = sources.archive_parts([pathlib.Path("r/1/0.tar"), pathlib.Path("r/2/1.tar")])
    assert [part.name for part in parts] == ["0", "1"]


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
    part = sources.Part("0", archive=tmp_path / "0.tar")
    seen = []
    for name in ("0.tar", "0.tar", "0.parquet"):
        (tmp_path / name).write_bytes(b"same size")
        os.utime(tmp_path / name, ns=(0, len(seen)))
        seen.append(part.fingerprint())
    assert len(set(seen)) == 3


@pytest.mark.parametrize("pattern", ["", "/*.jpg"])
def test_dangling_links_come_through(root, pattern):
    (root / "z.jpg").symlink_to(root / "nowhere.jpg")
    images = list_images(sources.find_files(f"{root}{pattern}"), root, None)
    assert "z.jpg" in {image.path.name for image in images}
    (part,) = sources.image_parts(images, 10)
    before = part.fingerprint()
    (root / "nowhere.jpg").write_bytes(b"")
    assert part.fingerprint() != before
