# SPDX-License-Identifier: Apache-2.0
"""Which kind of source `--input` names."""

import pathlib

import pyarrow
import pyarrow.parquet
import pytest

from mtv_jax.core.errors import UserError
from tools.data import inputs, sources


@pytest.fixture
def root(tmp_path):
    """A folder with one file of images, as table."""
    (tmp_path / "root").mkdir()
    table = pyarrow.table({"jpg": [b"1"], "caption": ["one"]})
    pyarrow.parquet.write_table(table, tmp_path / "root/00000.parquet")
    return tmp_path / "root"


def _names(pattern, **options):
    found = inputs.find(str(pattern), sources.Options(**options))
    return [(type(part).__name__, part.name) for part in found.parts]


def test_what_lies_there_decides(root):
    assert _names(root) == [("ParquetPart", "00000")]
    (root / "00000.tar").write_bytes(b"")
    assert _names(root) == [("ArchivePart", "00000")]
    (root / "00000.tar").unlink()
    pyarrow.parquet.write_table(pyarrow.table({"url": ["x"]}), root / "00000.parquet")
    (root / "a.jpg").write_bytes(b"")
    assert _names(root) == [("ImagesPart", "a.jpg")]
    (root / "b.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"both tars \(\S+b.tar\) and images \(\S+a.jpg\)"):
        inputs.find(str(root), sources.Options())


def test_images_beside_a_table_of_images_are_two_kinds(root):
    (root / "logo.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"both images .* and parquet files"):
        inputs.find(str(root), sources.Options())
    assert _names(f"{root}/*.parquet") == [("ParquetPart", "00000")]


def test_nothing_there(root, tmp_path):
    for pattern in (str(tmp_path / "nothing"), str(tmp_path / "*.tar")):
        with pytest.raises(UserError, match=r"matches no \.tar and no image"):
            inputs.find(pattern, sources.Options())


def test_a_name_of_the_hub_is_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        inputs.find("laion/pop_1.5", sources.Options())
    command = "hf download --repo-type dataset laion/pop_1.5 --local-dir DIR"
    assert command in str(caught.value) and "--input DIR" in str(caught.value)
    pathlib.Path("laion/pop_1.5").mkdir(parents=True)
    with pytest.raises(UserError, match="matches no"):
        inputs.find("laion/pop_1.5", sources.Options())


def test_options_of_another_kind_are_refused(root):
    with pytest.raises(UserError, match=r"--captions goes with images; .* holds parquet files"):
        inputs.find(str(root), sources.Options(captions=root / "t.csv"))
    (root / "0.tar").write_bytes(b"")
    for option in ("caption_column", "split"):
        with pytest.raises(UserError, match=f"--{option} goes with parquet .* holds tars"):
            inputs.find(str(root), sources.Options(**{option: "x"}))
    with pytest.raises(UserError, match=r"--rows_per_shard goes with images; .* holds tars"):
        inputs.find(str(root), sources.Options(rows_per_shard=500))


def test_settings_are_what_changes_the_store(root):
    found = inputs.find(str(root), sources.Options(caption_column="caption"))
    assert found.settings == {"caption_column": "caption"}


def test_files_passed_over_are_counted(tmp_path, capsys):
    names = ["a.jpg", "1.heic", "2.HEIC", "README", "a.txt", "a.json", "t.csv", "t.tsv"]
    for name in (*names, "x.tfrecord-00000-of-00001"):
        (tmp_path / name).write_text("")
    assert len(_names(tmp_path)) == 1
    said = f"note: {tmp_path}: passed over 1 without suffix, 2 .heic\n"
    assert said in capsys.readouterr().err
