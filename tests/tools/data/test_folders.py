# SPDX-License-Identifier: Apache-2.0
"""Samples out of a folder, and where their captions come from."""

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


def _images(root, table=None):
    return list_images(folders.claim(sources.find_files(str(root))), root, table)


def _captions(root, table=None):
    images = _images(root, table)
    return {s.key: (s.text, s.metadata) for s in read_samples(images)}


def test_keys_are_paths_and_captions_are_optional(root):
    images = _images(root)
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
        "file;caption, as heard;text\na.jpg;x;one\ncats//b.PNG;x;two, with comma\n",
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


def test_of_several_columns_the_one_that_other_sources_take(root):
    (root / "t.csv").write_text("file,title,text\na.jpg,a name,what is seen\n")
    assert _captions(root)["a.jpg"][0] == b"what is seen"


def test_tables_that_cannot_be_used(root, tmp_path):
    table = tmp_path / "t.csv"
    with pytest.raises(UserError, match="No such file"):
        _captions(root, table)
    table.write_text("name,words\na.jpg,one\n")
    with pytest.raises(UserError, match="needs a column of files"):
        _captions(root, table)
    table.write_text(f"filename,caption\na.jpg,{'x' * 200_000}\n")
    with pytest.raises(UserError, match="is not a table: field larger"):
        _captions(root, table)
    table.write_text("filename,caption\nz.jpg,one\n")
    with pytest.raises(UserError, match="names none of the images"):
        _captions(root, table)
    for name in ("1.csv", "2.csv"):
        (root / name).write_text("filename,caption\na.jpg,one\n")
    with pytest.raises(UserError, match=r"several captions tables \(\S+/1.csv, \S+/2.csv\)"):
        _captions(root)


def test_files_that_cannot_be_taken(root, monkeypatch):
    images = _images(root)
    images[0].path.unlink()
    monkeypatch.setattr(folders, "MAX_IMAGE_BYTES", 10)
    refusals = {s.key: s.refusal for s in read_samples(images)}
    assert refusals == {"a.jpg": "unreadable", "cats/b.PNG": "", "cats/c.webp": "oversize_member"}


@pytest.mark.parametrize("folder", ["images/", "", ".//images//"])
@pytest.mark.parametrize("given", [True, False])
def test_captions_table_beside_the_folder_of_images(tmp_path, folder, given):
    """What archives of captioned photographs look like."""
    root = tmp_path / "kaggle"
    (root / "images").mkdir(parents=True)
    for number in range(2):
        (root / "images" / f"{number}.jpg").write_bytes(b"x")
    table = root / "captions.csv"
    table.write_text(f"image,caption\n{folder}0.jpg,zero\n{folder}1.jpg,one\n")
    captions = _captions(root, table if given else None)
    assert {key: text for key, (text, _) in captions.items()} == {"0.jpg": b"zero", "1.jpg": b"one"}
    assert _captions(root / "images", table)["1.jpg"][0] == b"one"
    table.rename(tmp_path / "t.csv")
    assert _captions(root, tmp_path / "t.csv")["1.jpg"][0] == b"one"


def test_bare_names_count_where_they_name_one_image(root):
    (root / "dogs").mkdir()
    (root / "dogs/b.PNG").write_bytes(b"")
    (root / "t.csv").write_text("file,caption\nb.PNG,which?\nc.webp,this\n")
    texts = {key: text for key, (text, _) in _captions(root).items() if text}
    assert texts == {"cats/c.webp": b"this"}


def test_what_became_of_the_tables_is_said(root, capsys):
    (root / "t.csv").write_text("file,caption\na.jpg,one\ny.jpg,two\nz.jpg,three\n")
    (root / "other.tsv").write_text("x\ty\n1\t2\n")
    (root / "huge.csv").write_text("x" * 200_000)
    (root / "folder.csv").mkdir()
    _captions(root)
    assert capsys.readouterr().err == (
        f"note: {root}/huge.csv, {root}/other.tsv: no columns of files and captions, not used\n"
        f"captions: {root}/t.csv has those of 1 of 3 images, and names 2 files that are not "
        "among them\n"
    )
