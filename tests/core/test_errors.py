# SPDX-License-Identifier: Apache-2.0
"""What an entry point makes of the ways it can end."""

import pytest

from mtv_jax.core.errors import UserError, closest, report_user_errors


def _ended(error, capsys):
    @report_user_errors
    def main():
        if isinstance(error, BaseException):
            raise error
        return error

    return main(), capsys.readouterr().err


@pytest.mark.parametrize("status", [None, 0, 1])
def test_the_status_comes_through(status, capsys):
    assert _ended(status, capsys) == (status or 0, "")


def test_what_a_user_can_mend_is_one_line(capsys):
    assert _ended(UserError("a: do b"), capsys) == (2, "error: a: do b\n")
    gone = FileNotFoundError(2, "No such file or directory", "x/y")
    assert _ended(gone, capsys) == (2, "error: x/y: No such file or directory\n")
    assert _ended(KeyboardInterrupt(), capsys) == (130, "stopped\n")


@pytest.mark.parametrize("error", [ValueError("a"), OSError("no file"), OSError(28, "full")])
def test_other_errors_are_ours(error, capsys):
    with pytest.raises(type(error)):
        _ended(error, capsys)


def test_closest():
    assert closest("wieght", ["weight", "batch"]) == ' (did you mean "weight"?)'
    assert closest("x", ["weight", "batch"]) == " (known: batch, weight)"
