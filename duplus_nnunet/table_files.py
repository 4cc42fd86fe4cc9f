"""Reads small tables that people write: CSV files as spreadsheets export them, and JSON files."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError

_DELIMITERS = ",;\t"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class TableRow:
    """One row of a CSV file.

    Attributes:
        line: Number of the line in the file on which the row ends, from 1.
        cells: The cells, without blanks around them.
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
    """

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    delimiter: str


def read_csv(file: Path, advice: str, known: Sequence[str] = ()) -> Table:
    """Read a CSV file whose cells are separated by commas, semicolons or tabs.

    Args:
        file: UTF-8 or UTF-16 text, with or without a byte order mark (UTF-16 needs one).
        advice: What to do if the file cannot be read, a sentence.
        known: Column names that may occur, in lower case. The delimiter is the one that separates most of them in the
            header; of several, the one that occurs most often there.

    Returns:
        The table; without columns if the file holds only blanks.

    Raises:
        DataError: The file cannot be read, or a quote is not closed.
    """
    text = read_table_text(file, advice)
    header = re.sub(r'"[^"]*"', "", text.partition("\n")[0])

    def rank(delimiter: str) -> tuple[int, int]:
        names = {name.strip().casefold() for name in text.partition("\n")[0].replace('"', "").split(delimiter)}
        return len(names & set(known)), header.count(delimiter)

    delimiter = max(_DELIMITERS, key=rank)
    rows = [row for row in _split_rows(text, delimiter, file) if any(row.cells)]
    return Table(rows[0].cells if rows else (), tuple(rows[1:]), delimiter)


def read_json(file: Path, advice: str) -> Any:
    """Read a JSON file.

    Args:
        file: UTF-8 or UTF-16 text, with or without a byte order mark (UTF-16 needs one).
        advice: What to do if the file cannot be read, a sentence.

    Raises:
        DataError: The file cannot be read, is not valid JSON, or names a key twice in one object.
    """
    text = read_table_text(file, advice)

    def build(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content:
                raise DataError(f"{file}: the key {key!r} occurs twice in one object. Keep one of the two.")
            content[key] = value
        return content

    try:
        return json.loads(text, object_pairs_hook=build)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON: {error}. Correct it.") from error


def read_table_text(file: Path, advice: str) -> str:
    r"""Read a text file, without its byte order mark and with "\n" at the end of each line.

    Raises:
        DataError: It does not exist, or is neither UTF-8 nor UTF-16.
    """
    try:
        content = file.read_bytes()
        encoding = "utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig"
        return "\n".join(content.decode(encoding).replace("\r\n", "\n").split("\r"))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}. {advice}") from error
    except UnicodeDecodeError as error:
        message = f"{file} cannot be read: it is not UTF-8 text ({error.reason} at byte {error.start})."
        raise DataError(f"{message} Save it as UTF-8.") from error


def _split_rows(text: str, delimiter: str, file: Path) -> Iterable[TableRow]:
    """Split a text into rows; strictly, as a quote that is not closed would take the lines below it into its cell."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            yield TableRow(reader.line_num, tuple(cell.strip() for cell in cells))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"Line {start} of {file} cannot be read ({error}). Close each quote right before the next {delimiter!r} or "
            'the end of the line, and write one that belongs to the text twice (""), or take it out.'
        ) from error
