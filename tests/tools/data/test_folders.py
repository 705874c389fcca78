# SPDX-License-Identifier: Apache-2.0
"""Samples out of a folder, and where their captions come from."""

import pathlib

import pytest

from mtv_jax.core.errors import UserError
from tools.data import folders, sources
from tools.data.folders import list_images, read_samples


@pytest.fixture
def root(tmp_path):
    """Three images, two of them one folder down."""
    for name in ("a.jpg", "cats/b.PNG", "cats/c.webp"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "photos"


def _captions(root, table=None):
    images = list_images(sources.find_files(str(root)), table)
    return {s.key: (s.text, s.metadata) for s in read_samples(images)}


def test_keys_are_paths_and_captions_are_optional(root):
    images = list_images(sources.find_files(str(root)), None)
    samples = list(read_samples(images))
    assert [sample.key for sample in samples] == ["a.jpg", "cats/b.PNG", "cats/c.webp"]
    assert [sample.image for sample in samples] == [b"a.jpg", b"cats/b.PNG", b"cats/c.webp"]
    assert {(s.text, s.metadata, s.refusal) for s in samples} == {(None, None, "")}


def test_captions_beside_the_images(root):
    (root / "a.txt").write_text("text a")
    (root / "cats/b.json").write_text('{"caption": "json b"}')
    captions = _captions(root)
    assert captions["a.jpg"] == (b"text a", None)
    assert captions["cats/b.PNG"] == (None, b'{"caption": "json b"}')


@pytest.mark.parametrize(
    "table",
    [
        'filename,caption\na.jpg,one\ncats/b.PNG,"two, with comma"\n',
        'Title,FilePath\none,./a.jpg\n"two, with comma",cats/b.PNG\n',
        "\ufefffile_name\ttext\na.jpg\tone\nb.PNG\ttwo, with comma\nb.PNG\tignored\n",
    ],
)
def test_captions_table_is_found(root, table):
    (root / "anything.csv").write_text(table)
    (root / "other.csv").write_text("x,y\n1,2\n")
    (root / "a.txt").write_text("overruled")
    captions = _captions(root)
    assert captions["a.jpg"][0] == b"one"
    assert captions["cats/b.PNG"][0] == b"two, with comma"
    assert captions["cats/c.webp"][0] is None


def test_captions_table_elsewhere(root, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text(f"image,caption\n{root / 'a.jpg'},absolute\n")
    assert _captions(root, table)["a.jpg"][0] == b"absolute"


def test_tables_that_cannot_be_used(root, tmp_path):
    table = tmp_path / "t.csv"
    with pytest.raises(UserError, match="No such file"):
        _captions(root, table)
    table.write_text("name,words\na.jpg,one\n")
    with pytest.raises(UserError, match="needs a column of files"):
        _captions(root, table)
    table.write_text("filename,caption\nz.jpg,one\n")
    with pytest.raises(UserError, match="names none of the images"):
        _captions(root, table)
    for name in ("1.csv", "2.csv"):
        (root / name).write_text("filename,caption\na.jpg,one\n")
    with pytest.raises(UserError, match=r"several captions tables \(1.csv, 2.csv\)"):
        _captions(root)


def test_files_that_cannot_be_taken(root, monkeypatch):
    images = list_images(sources.find_files(str(root)), None)
    images[0].path.unlink()
    monkeypatch.setattr(folders, "MAX_IMAGE_BYTES", 10)
    refusals = {s.key: s.refusal for s in read_samples(images)}
    assert refusals == {"a.jpg": "unreadable", "cats/b.PNG": "", "cats/c.webp": "oversize_member"}


def test_find_files(root, tmp_path):
    assert [p.name for p in sources.find_files(f"{root}/cats/*.webp")] == ["c.webp"]
    assert len(sources.find_files(f"{root}/**/*")) == 3
    (root / ".hidden.jpg").write_bytes(b"")
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


def test_part_names_are_unique():
    parts = sources.archive_parts([pathlib.Path("r/1/0.tar"), pathlib.Path("r/2/0.tar")])
    assert [part.name for part in parts] == ["1/0.tar", "2/0.tar"]
    parts = sources.archive_parts([pathlib.Path("r/1/0.tar"), pathlib.Path("r/2/1.tar")])
    assert [part.name for part in parts] == ["0", "1"]


def test_fingerprint_follows_content(root):
    def fingerprints():
        images = list_images(sources.find_files(str(root)), None)
        return [part.fingerprint() for part in sources.image_parts(images, 2)]

    before = fingerprints()
    assert len(before) == 2 and before == fingerprints()
    (root / "cats/c.webp").write_bytes(b"longer than it was")
    after = fingerprints()
    assert after[0] == before[0] and after[1] != before[1]
    (root / "t.csv").write_text("file,caption\na.jpg,one\n")
    assert fingerprints()[0] != before[0]
