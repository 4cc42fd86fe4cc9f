"""Drafts a time of follow-up that is given by two columns of dates."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.plausible_values import are_dates
from duplus_nnunet.survival.records.schema import MISSING, normalise_cell
from duplus_nnunet.survival.records.table import Rows

_DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d-%b-%Y", "%d %b %Y", "%d%b%Y", "%d %B %Y")
# Day and month in both orders, and years of two or four digits.
_NUMBERS = tuple(
    form
    for mark in ("/", "-", ".")
    for form in (f"%d{mark}%m{mark}%Y", f"%m{mark}%d{mark}%Y", f"%d{mark}%m{mark}%y", f"%m{mark}%d{mark}%y")
)
_CLOCKS = ("", " %H:%M:%S", "T%H:%M:%S", " %H:%M")
FORMATS = tuple(day + clock for clock in _CLOCKS for day in (*_DAYS, *_NUMBERS))
# A column that is empty in more than this share of the rows is no end of follow-up of all patients.
_MOST_EMPTY = 0.1
# Formats that read none of so many dates are not tried on the others.
_FIRST = 20


def list_dates(rows: Rows) -> list[str]:
    """List the columns whose known cells are dates."""
    return [name for name in rows.columns if are_dates(_list_known(rows, name))]


def draft_dates(rows: Rows, start: str, end: str, otherwise: str | None, form: str | None) -> dict[str, Any]:
    """Draft `time` of a schema from columns of dates.

    Args:
        rows: Cells of the table.
        start: Column of the start.
        end: Column of the event or of the end of follow-up.
        otherwise: Column that is read where `end` is empty; None: there is none.
        form: Format of the dates, for Python's strptime; None: inferred.

    Raises:
        DataError: `end` is empty in many rows without `otherwise`, or the format is not given and cannot be inferred.
    """
    columns = [start, end, *([otherwise] if otherwise else [])]
    empty = len(rows.rows) - len(_list_known(rows, end))
    if otherwise is None and empty > _MOST_EMPTY * len(rows.rows):
        others = [name for name in list_dates(rows) if name not in columns]
        raise DataError(
            f"The date {end!r} is missing in {empty} of {len(rows.rows)} rows, as a date of death is in the living. "
            "Name the column that is read there, such as the last contact: --otherwise COLUMN."
            + (f" Other columns of dates: {', '.join(map(repr, others))}." if others else "")
        )
    found = form or _infer_format(columns, [cell for name in columns for cell in _list_known(rows, name)])
    return {"start": start, "end": end, **({"otherwise": otherwise} if otherwise else {}), "format": found}


def _list_known(rows: Rows, name: str) -> list[str]:
    return [cell.strip() for cell in rows.column(name) if normalise_cell(cell) not in MISSING]


def _infer_format(columns: Sequence[str], cells: Sequence[str]) -> str:
    """Infer the format of dates.

    Raises:
        DataError: No format reads all of them, or several do.
    """
    listed = ", ".join(map(repr, columns))
    different = [*dict.fromkeys(cells)]
    likely = [form for form in FORMATS if any(_is_read(cell, form) for cell in different[:_FIRST])]
    readable = {form: sum(_is_read(cell, form) for cell in different) for form in likely or FORMATS}
    best = max(readable.values())
    fitting = [form for form, count in readable.items() if count == best and count]
    if not fitting or best < len(different):
        odd = next((cell for cell in different if not any(_is_read(cell, form) for form in fitting)), "")
        found = f" Most are read as {fitting[0]!r}, {odd!r} is not." if fitting else f" The first is {odd!r}."
        raise DataError(
            f"No one format of dates reads the columns {listed}.{found} Write all dates alike, or give the format, for "
            "Python's strptime: --format '%Y-%m-%d'."
        )
    if len(fitting) > 1:
        raise DataError(
            f"The dates of the columns {listed}, such as {cells[0]!r}, can be read in {len(fitting)} ways. Give the "
            f"format: --format {_join(fitting)}."
        )
    return fitting[0]


def _join(forms: Iterable[str]) -> str:
    return " or --format ".join(repr(form) for form in forms)


def _is_read(cell: str, form: str) -> bool:
    try:
        datetime.strptime(cell, form)
    except ValueError:
        return False
    return True
