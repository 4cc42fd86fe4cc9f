"""CSV and JSON files that people write."""

from pathlib import Path

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.table_files import Table, read_csv, read_json

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
