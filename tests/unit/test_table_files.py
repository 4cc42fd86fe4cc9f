"""CSV and JSON files that people write."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duplus_nnunet.errors import DataError
from duplus_nnunet.table_files import (
    Table,
    escape_cell,
    format_csv,
    read_csv,
    read_json,
    read_table_text,
    restore_cell,
    write_csv,
)

ADVICE = "Give another file."


def read(tmp_path: Path, content: str | bytes, *known: str) -> Table:
    file = tmp_path / "table.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_csv(file, ADVICE, known)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiter_encoding_and_line_ends_are_found(delimiter: str, encoding: str, end: str, tmp_path: Path) -> None:
    text = end.join(["case, größe ", "", "a,1", ",", 'b,"x"']).replace(",", delimiter)
    table = read(tmp_path, text.encode(encoding))
    assert (table.columns, table.delimiter) == (("case", "größe"), delimiter)
    assert [(row.line, row.cells) for row in table.rows] == [(3, ("a", "1")), (5, ("b", "x"))]


def test_quoted_delimiters_of_the_header_do_not_count(tmp_path: Path) -> None:
    assert read(tmp_path, 'a,"b;c;d"\n1,2\n').columns == ("a", "b;c;d")


def test_known_columns_decide_on_the_delimiter(tmp_path: Path) -> None:
    assert read(tmp_path, "Case,context,note; free; text; here\n", "case", "context").delimiter == ","


def test_single_column_is_not_split_at_delimiters_of_its_cells(tmp_path: Path) -> None:
    assert read(tmp_path, "image\na;b\n", "image").rows[0].cells == ("a;b",)


def test_rows_may_differ_in_length(tmp_path: Path) -> None:
    assert [len(row.cells) for row in read(tmp_path, "a,b\n1\n1,2,3\n").rows] == [1, 3]


def test_cell_may_hold_line_breaks(tmp_path: Path) -> None:
    (row, last) = read(tmp_path, 'a,b\n"1\n2",3\n4,5\n').rows
    assert (row.cells, row.line, last.line) == (("1\n2", "3"), 3, 4)


@pytest.mark.parametrize("text", ["", "\n \n", ",\n"])
def test_blank_file_is_a_table_without_columns(text: str, tmp_path: Path) -> None:
    table = read(tmp_path, text)
    assert (table.columns, table.rows) == ((), ())


def test_quote_that_is_not_closed_is_refused_by_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Line 3 .*table\.csv"):
        read(tmp_path, 'a,b\n1,2\n3,"4\n5,6\n')


def test_other_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"table\.csv.*byte 0.*UTF-8"):
        read(tmp_path, "größe".encode("cp1252")[2:])


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"PK\x03\x04" + bytes(200), "workbook"),
        (b"\xd0\xcf\x11\xe0" + bytes(200), "workbook"),
        ("id;age\n1;2\n".encode("utf-16-le"), "UTF-16"),
    ],
)
def test_what_is_no_text_is_refused_by_what_it_is(content: bytes, part: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=part):
        read_csv(tmp_path / "t.csv", ADVICE, legacy=True)


def test_missing_file_is_named_with_the_advice(tmp_path: Path) -> None:
    for reader in (read_csv, read_json):
        with pytest.raises(DataError, match=rf"none\.csv .*{ADVICE}"):
            reader(tmp_path / "none.csv", ADVICE)


def test_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('\ufeff[{"a": {"b": 1}}]'.encode())
    assert read_json(tmp_path / "a.json", ADVICE) == [{"a": {"b": 1}}]


@pytest.mark.parametrize(("text", "message"), [("{", "JSON"), ('[{"a": 1, "b": {"c": 1, "c": 2}}]', "'c'")])
def test_json_that_is_broken_or_names_a_key_twice_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"a\.json.*{message}"):
        read_json(tmp_path / "a.json", ADVICE)


STRANGE = [
    "=1+2", "=cmd|'/C calc'!A0", "+1 (0)", "-1-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "'=1", "''-x", "'-1.5",
    "-", "a\nb", "a\r\nb", "\u202egnp.exe", "\u2066x\u2069", "a\x00b", "\ufeffx", "\udcff",
    "\\u000a", "\\u0041", "\\\\u000a", "C:\\users", "\\\n", "- ", "=", "a,b", 'a"b', ";", "größe",
]  # fmt: skip


@pytest.mark.parametrize("text", STRANGE)
def test_strange_text_is_the_same_after_reading(text: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "table.csv", [["case", "x"], [text, 1], ["last", 2]])
    rows = read_csv(tmp_path / "table.csv", ADVICE).rows
    assert [row.cells for row in rows] == [(text.strip(" "), "1"), ("last", "2")]


@pytest.mark.parametrize("text", STRANGE)
def test_strange_text_is_no_formula_and_one_visible_line(text: str) -> None:
    cell = escape_cell(text)
    assert not cell.lstrip().startswith(("=", "+", "-", "@", "\uff1d"))
    assert cell.replace("\\", "").isprintable()


@given(st.text(alphabet=st.characters(codec=None) | st.sampled_from("='+-@\\u000a\t\n\r\u202e")))
def test_any_text_is_the_same_after_reading(text: str) -> None:
    assert restore_cell(escape_cell(text)) == text


@pytest.mark.parametrize("cell", ["-1.5", "+0.122", "-inf", "1e-3", "", "nan", "case_001", "'x'", "O'Brien", "-1e5"])
def test_numbers_and_plain_texts_stay_as_they_are(cell: str) -> None:
    assert (escape_cell(cell), restore_cell(cell)) == (cell, cell)


def test_quote_before_a_number_of_a_foreign_table_stays() -> None:
    assert restore_cell("'-1.5") == "'-1.5"


def test_other_values_are_written_as_they_are() -> None:
    assert format_csv([["a", "b", "c"], [None, -1.5, True]]) == "a,b,c\n,-1.5,True\n"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000, "9" * 6000, '"\\ud800"', '{"a": {"\\udfff": 1}}'])
def test_json_that_breaks_readers_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"file\.json"):
        read_json(file, ADVICE)


def test_surrogate_pair_is_one_character(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_text('["\\ud83d\\ude00"]', encoding="utf-8")
    assert read_json(file, ADVICE) == ["\U0001f600"]


@pytest.mark.parametrize("read", [read_csv, read_json])
def test_pipe_and_folder_in_place_of_a_file_are_refused(read: Callable[..., object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", tmp_path, Path("/dev/zero")):
        with pytest.raises(DataError, match=str(path)):
            read(path, ADVICE)


def test_large_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "large.csv"
    file.write_bytes(b"x" * 101)
    assert len(read_table_text(file, ADVICE, 101)) == 101
    with pytest.raises(DataError, match=r"large\.csv"):
        read_table_text(file, ADVICE, 100)
