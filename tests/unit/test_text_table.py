"""Tables of text."""

import pytest

from duplus_nnunet.text_table import format_table


def test_columns_are_as_wide_as_their_widest_cells() -> None:
    assert list(format_table([("a", "bb", "c"), ("aaa", "b", "c")])) == ["a    bb  c", "aaa  b   c"]


def test_columns_are_aligned_as_asked_and_to_the_left_otherwise() -> None:
    rows = [("name", "cases", "source"), ("a", "3", "x")]
    assert list(format_table(rows, align="<>")) == ["name  cases  source", "a         3  x"]


def test_last_cell_of_a_short_row_does_not_widen_its_column() -> None:
    rows = [("a", "1"), ("a heading over both",), ("b", "2")]
    assert list(format_table(rows)) == ["a  1", "a heading over both", "b  2"]


def test_empty_cells_leave_no_blanks_at_the_end() -> None:
    assert list(format_table([("a", ""), ("", "b")], indent="  ")) == ["  a", "     b"]


@pytest.mark.parametrize("rows", [[], [()]])
def test_table_without_cells(rows: list[tuple[str, ...]]) -> None:
    assert list(format_table(rows)) == [""] * len(rows)
