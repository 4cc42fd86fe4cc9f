"""Reads the tables that a draft is made of, and finds the columns of the patient ID by which they are joined."""

from collections.abc import Sequence
from pathlib import Path

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.column_roles import rank_patients
from duplus_nnunet.survival.records.joined_tables import join_rows
from duplus_nnunet.survival.records.table import Rows, read_rows


def read_tables(
    table: Path, more: Sequence[Path], cases: Sequence[str], patient: str | None
) -> tuple[Rows, tuple[tuple[str, str], ...]]:
    """Read a clinical table, and join further ones to it.

    Args:
        table: The clinical table.
        more: Further tables, in the same folder.
        cases: Identifiers of cases that have an image.
        patient: Column of the patient ID in the clinical table; None: it is guessed.

    Returns:
        The joined rows; and the column of the patient ID of each further table, by file name.

    Raises:
        DataError: A table is in another folder, has no column of the patient ID, or cannot be joined.
    """
    rows = read_rows(table)
    if not more:
        return rows, ()
    own = patient or _find_patient(rows, cases)
    tables = []
    for file in more:
        if file.resolve().parent != table.resolve().parent or file.resolve() == table.resolve():
            raise DataError(f"{file} is not a second table in the folder of {table}. Put it there.")
        other = read_rows(file)
        column = own if own in other.columns else _find_patient(other, cases)
        rows = join_rows(rows, other, own, column)
        tables.append((file.name, column))
    return rows, tuple(tables)


def _find_patient(rows: Rows, cases: Sequence[str]) -> str:
    likely = rank_patients(rows, cases)
    if not likely:
        raise DataError(
            f"No column of {rows.file} looks like the patient ID, by which tables are joined; it has "
            f"{', '.join(rows.columns)}. Give it the same name in all tables, and name it: --patient COLUMN."
        )
    return likely[0]
