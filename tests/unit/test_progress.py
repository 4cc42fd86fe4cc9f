"""Progress is shown on standard error of a terminal, and nothing of it is in pipes or on standard output."""

import io
import sys

import pytest

from duplus_nnunet.progress import follow, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def open_terminal(monkeypatch):
    """Return what makes standard error a terminal; pytest replaces it once more when the test begins."""

    def start():
        made = Terminal()
        monkeypatch.setattr(sys, "stderr", made)
        return made

    return start


def test_a_terminal_gets_a_bar_on_standard_error_with_the_time_left(open_terminal, capsys):
    terminal = open_terminal()
    assert list(track(iter("abcd"), 4, "reading", "case")) == list("abcd")
    shown = terminal.getvalue()
    assert "reading" in shown
    assert "4/4" in shown
    assert "<" in shown  # time so far < time left
    assert capsys.readouterr().out == ""


def test_pipes_get_nothing(capsys):
    assert list(track(iter("abcd"), 4, "reading", "case")) == list("abcd")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("every", "lines"), [(0.0, 3), (1e9, 0)])
def test_a_step_that_reports_into_log_files_writes_lines_without_a_terminal(every, lines, capsys):
    with follow(4, "reading", "case", every) as count:
        for _ in range(4):
            count()
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", lines)
    assert err == "" or "3 of 4" in err.splitlines()[-1]


def test_several_parts_may_be_counted_at_a_time(open_terminal):
    terminal = open_terminal()
    with follow(10, "embedding", "text") as count:
        count(7)
        count(3)
    assert "10/10" in terminal.getvalue()


def test_what_ends_a_step_early_is_not_hidden(open_terminal):
    open_terminal()
    with pytest.raises(KeyError, match="damaged"), follow(2, "reading", "case"):
        raise KeyError("damaged")
