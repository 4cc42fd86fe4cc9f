"""Reads and writes small tables: CSV files as spreadsheets export them, and JSON files.

Cells that a spreadsheet would run as a formula, and characters that hide or reorder text, are written escaped; reading
undoes it.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import write_text
from duplus_nnunet.text_files import MOST_BYTES, load_json, read_encoded_text, read_text

_DELIMITERS = ",;\t"
_MOST_TABLE_BYTES = 64 << 20
_WORKBOOKS = "PK\x03\x04", "\u00d0\u00cf\x11\u00e0"  # how .xlsx and .xls files begin
_BEGINNING = 4096
# Spreadsheets run a cell that starts with one of these as a formula; the last four are the full-width forms.
_FORMULA = re.compile("^'*\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20]")
_ESCAPED_FORMULA = re.compile("^'+\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20]")
# Control characters, line and paragraph separators, marks that change the direction of text, halves of surrogate pairs.
_HIDDEN = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_TO_ESCAPE = re.compile(rf"[{_HIDDEN}]|\\(?=u[0-9a-f]{{4}})")
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")
_CAN_BE_ESCAPED = re.compile(rf"[{_HIDDEN}\\]")


@dataclass(frozen=True)
class TableRow:
    """One row of a CSV file.

    Attributes:
        line: Number of the line in the file on which the row ends, from 1.
        cells: The cells, without blanks around them, and with what `escape_cell` escaped restored.
    """

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A CSV file with a header; rows of blank cells are left out, and rows may differ in length.

    Attributes:
        columns: Cells of the header.
        rows: All rows below it.
        delimiter: What separates the cells.
        encoding: Encoding of the text: UTF-8, UTF-16 or Windows-1252.
    """

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    delimiter: str
    encoding: str = "UTF-8"


def read_csv(file: Path, advice: str, known: Sequence[str] = (), *, legacy: bool = False) -> Table:
    """Read a CSV file whose cells are separated by commas, semicolons or tabs.

    Args:
        file: UTF-8 or UTF-16 text, with or without a byte order mark (UTF-16 needs one).
        advice: What to do if the file cannot be read, a sentence.
        known: Column names that may occur, in lower case. The delimiter is the one that separates most of them in the
            header; of several, the one that occurs most often there.
        legacy: Also read text that is not UTF-8 as Windows-1252, as spreadsheets on Windows save it.

    Returns:
        The table; without columns if the file holds only blanks.

    Raises:
        DataError: The file cannot be read, or a quote is not closed.
    """
    text, encoding = (
        _read_encoded(file, advice) if legacy else (read_table_text(file, advice, _MOST_TABLE_BYTES), "UTF-8")
    )
    _refuse_binary(text, file)
    header = re.sub(r'"[^"]*"', "", text.partition("\n")[0])

    def rank(delimiter: str) -> tuple[int, int]:
        names = {name.strip().casefold() for name in text.partition("\n")[0].replace('"', "").split(delimiter)}
        return len(names & set(known)), header.count(delimiter)

    delimiter = max(_DELIMITERS, key=rank)
    rows = [row for row in _split_rows(text, delimiter, file) if any(row.cells)]
    return Table(rows[0].cells if rows else (), tuple(rows[1:]), delimiter, encoding)


def _refuse_binary(text: str, file: Path) -> None:
    """Refuse what is no text, whatever its ending.

    Raises:
        DataError: It is a workbook, or text of an encoding that was not recognised.
    """
    if text.startswith(_WORKBOOKS):
        raise DataError(
            f"{file} is a workbook of a spreadsheet program, and no CSV file. Save its sheet as CSV (UTF-8)."
        )
    if "\0" in text[:_BEGINNING]:
        raise DataError(f"{file} has zero bytes, as UTF-16 without a byte order mark has. Save it as CSV (UTF-8).")


def _read_encoded(file: Path, advice: str) -> tuple[str, str]:
    """Read the text of a table in any encoding that spreadsheets write, and name the encoding."""
    try:
        return read_encoded_text(file, _MOST_TABLE_BYTES)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}. {advice}") from error


def read_json(file: Path, advice: str) -> Any:
    """Read a JSON file.

    Args:
        file: UTF-8 or UTF-16 text, with or without a byte order mark (UTF-16 needs one).
        advice: What to do if the file cannot be read, a sentence.

    Raises:
        DataError: The file cannot be read, is too large, is not valid JSON, is nested too deeply, or names a key twice
            in one object.
    """
    try:
        return load_json(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}. {advice}") from error


def read_table_text(file: Path, advice: str, most: int = MOST_BYTES) -> str:
    r"""Read a text file, without its byte order mark and with "\n" at the end of each line.

    Raises:
        DataError: It does not exist, is not a regular file, is larger than `most` bytes, or is neither UTF-8 nor
            UTF-16.
    """
    try:
        return read_text(file, most)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}. {advice}") from error


def write_csv(file: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table as CSV, heading first, atomically; cells are escaped as in `format_csv`."""
    write_text(file, format_csv(rows))


def format_csv(rows: Iterable[Sequence[object]]) -> str:
    """Format a table as CSV, heading first; texts are escaped by `escape_cell`, None is an empty cell.

    Example:
        >>> print(format_csv([("case", "note"), ("patient_1", "=1+2"), ("patient_2", None)]), end="")
        case,note
        patient_1,'=1+2
        patient_2,
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([escape_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()


def escape_cell(text: str) -> str:
    r"""Make a text safe as a cell: no spreadsheet runs it as a formula, and it is one visible line.

    A cell that starts with = + - or @ gets a single quote before it, unless it is a number. Control characters, line
    breaks, marks that change the direction of text and halves of surrogate pairs become \uXXXX. `restore_cell` undoes
    both. Source: OWASP, CSV Injection.

    >>> escape_cell("=1+2"), escape_cell("-1.5"), escape_cell("a\nb")
    ("'=1+2", '-1.5', 'a\\u000ab')
    """
    visible = _TO_ESCAPE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return f"'{visible}" if _FORMULA.match(visible) and not is_number(visible) else visible


def restore_cell(cell: str) -> str:
    """Return the text of a cell written by `escape_cell`; other cells stay as they are."""
    if _ESCAPED_FORMULA.match(cell) and not is_number(cell[1:]):
        cell = cell[1:]

    def decode(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if _CAN_BE_ESCAPED.match(character) else match[0]

    return _ESCAPED.sub(decode, cell)


def is_number(cell: str) -> bool:
    """Report whether a cell holds a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _split_rows(text: str, delimiter: str, file: Path) -> Iterable[TableRow]:
    """Split a text into rows; strictly, as a quote that is not closed would take the lines below it into its cell."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            yield TableRow(reader.line_num, tuple(restore_cell(cell.strip()) for cell in cells))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"Line {start} of {file} cannot be read ({error}). Close each quote right before the next {delimiter!r} or "
            'the end of the line, and write one that belongs to the text twice (""), or take it out.'
        ) from error
