# SPDX-License-Identifier: Apache-2.0
import sys

from tools import export_check


def test_without_torch_it_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert export_check.main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "needs PyTorch and transformers" in error and "pip install" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
