"""Rewrites the numbers of a table with a decimal comma, or with marks between thousands, with a decimal point.

The marks are detected by column; a column whose cells can be read in two ways is refused.
"""

import re
from collections.abc import Mapping, Sequence

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.schema import MISSING
from duplus_nnunet.table_files import is_number

_GAP = "[ '\u2019\u00a0\u202f]"  # blanks and apostrophes between thousands
_COMMA = re.compile(rf"[+-]?(\d+|\d{{1,3}}(\.\d{{3}})+|\d{{1,3}}({_GAP}\d{{3}})+),\d+")
_POINT_WITH_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_GAPS = re.compile(rf"[+-]?\d{{1,3}}({_GAP}\d{{3}})+")
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_THREE_DIGITS = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")  # a fraction, or thousands
_SEVERAL_POINTS = re.compile(r"[+-]?\d{1,3}(\.\d{3}){2,}")
_SHARE = 0.8  # of the known cells of a column that must be numbers
_COMMA_READING, _POINT_READING = "a decimal comma", "commas between thousands"


def read_marks(
    file: str, columns: Sequence[str], rows: Sequence[Mapping[str, str]]
) -> tuple[tuple[Mapping[str, str], ...], tuple[str, ...]]:
    """Rewrite the numbers of all columns with a decimal point.

    Returns:
        The rows, and a sentence on each kind of mark with the columns that have it.

    Raises:
        DataError: A column can be read with a decimal comma and with commas between thousands.
    """
    cells = {name: [row[name] for row in rows if row[name].casefold() not in MISSING] for name in columns}
    readings = {name: _choose(column) for name, column in cells.items()}
    certain = {reading for reading in readings.values() if reading in (_COMMA_READING, _POINT_READING)}
    for name, reading in readings.items():
        if reading == "?":
            readings[name] = _decide(file, name, cells[name], certain)
        if readings[name] == _COMMA_READING or (readings[name] == "" and _COMMA_READING in certain):
            _require_plain_points(file, name, cells[name], readings[name] == _COMMA_READING)
    changed = {name: reading for name, reading in readings.items() if reading}
    notes = [
        f"Numbers with {reading} in the column(s) {', '.join(repr(n) for n in changed if changed[n] == reading)}."
        for reading in sorted(set(changed.values()))
    ]
    if not changed:
        return tuple(rows), ()
    return tuple({name: _rewrite(cell, changed.get(name, "")) for name, cell in row.items()} for row in rows), (*notes,)


def _choose(cells: Sequence[str]) -> str:
    """Return how the numbers of a column are marked; "" if as usual or not numbers, "?" if it is in doubt."""
    comma = [cell for cell in cells if _COMMA.fullmatch(cell) or _SEVERAL_POINTS.fullmatch(cell)]
    point = [cell for cell in cells if _POINT_WITH_THOUSANDS.fullmatch(cell)]
    gaps = [cell for cell in cells if _GAPS.fullmatch(cell)]
    marked = {*comma, *point, *gaps}
    if not marked or sum(cell in marked or is_number(cell) for cell in cells) < _SHARE * len(cells):
        return ""
    only_comma = [cell for cell in comma if not _AMBIGUOUS.fullmatch(cell)]
    only_point = [cell for cell in point if not _AMBIGUOUS.fullmatch(cell)]
    if only_comma and only_point:
        return "?"
    if only_comma:
        return _COMMA_READING
    if only_point:
        return _POINT_READING
    return "?" if comma or point else "blanks or apostrophes between thousands"


def _decide(file: str, name: str, cells: Sequence[str], certain: set[str]) -> str:
    """Read a column in doubt as the certain columns of the table are read, if they agree."""
    ambiguous = [cell for cell in cells if _AMBIGUOUS.fullmatch(cell)]
    mixed = [cell for cell in cells if (_COMMA.fullmatch(cell) or _POINT_WITH_THOUSANDS.fullmatch(cell))]
    if len(certain) == 1 and len(ambiguous) == len(mixed):
        return next(iter(certain))
    example = (ambiguous or mixed)[0]
    raise DataError(
        f"{file}: the comma in the column {name!r} can be a decimal mark or a mark between thousands, as in "
        f"{example!r}. Write these numbers with a decimal point and without other marks."
    )


def _require_plain_points(file: str, name: str, cells: Sequence[str], has_commas: bool) -> None:
    """Require that points of a table with decimal commas are no marks between thousands, or all of a column are.

    Args:
        file: Name of the table.
        name: Name of the column.
        cells: Its known cells.
        has_commas: Whether numbers of this column have a decimal comma; a decimal point beside it is no evidence.

    Raises:
        DataError: They can be read in two ways.
    """
    doubtful = [cell for cell in cells if _THREE_DIGITS.fullmatch(cell)]
    plain = [cell for cell in cells if "." in cell and is_number(cell) and not _THREE_DIGITS.fullmatch(cell)]
    grouped = any("." in cell and (_COMMA.fullmatch(cell) or _SEVERAL_POINTS.fullmatch(cell)) for cell in cells)
    numbers = sum(is_number(cell) or _COMMA.fullmatch(cell) is not None for cell in cells)
    settled = grouped and not plain if has_commas else grouped or plain
    if doubtful and not settled and numbers >= _SHARE * len(cells):
        raise DataError(
            f"{file}: numbers have a decimal comma, so that the point in the column {name!r} can be a mark between "
            f"thousands or a decimal mark, as in {doubtful[0]!r}. Write these numbers without marks between thousands."
        )


def _rewrite(cell: str, reading: str) -> str:
    thousands = _SEVERAL_POINTS.fullmatch(cell) or _THREE_DIGITS.fullmatch(cell)
    if reading == _COMMA_READING and (_COMMA.fullmatch(cell) or thousands):
        return re.sub(rf"\.|{_GAP}", "", cell).replace(",", ".")
    if reading == _POINT_READING and _POINT_WITH_THOUSANDS.fullmatch(cell):
        return cell.replace(",", "")
    return re.sub(_GAP, "", cell) if reading and _GAPS.fullmatch(cell) else cell
