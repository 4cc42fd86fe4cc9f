"""Joins clinical tables by the patient ID: one row a patient, with the columns of all tables."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.schema import MISSING, ROW_NUMBER, ClinicalSchema, normalise_cell, read_schema
from duplus_nnunet.survival.records.table import Rows, join_names, read_rows

_Cells = Mapping[str, Mapping[str, str]]
_DECIMALS = re.compile(r"(?<=\d)\.0+$")


def read_clinical(table: Path, schema_file: Path, endpoint: str | None = None) -> tuple[Rows, ClinicalSchema]:
    """Read a clinical table, the tables that its schema joins to it, and the schema of one endpoint.

    Args:
        table: The clinical table.
        schema_file: Its schema, in whose folder the joined tables are.
        endpoint: Name of the endpoint; None: the only one.

    Raises:
        DataError: A file is missing or invalid, the tables cannot be joined, or the endpoint has to be chosen.
    """
    schema = read_schema(schema_file, endpoint)
    return read_joined(table, schema_file.parent, schema.patient, schema.tables), schema


def read_joined(table: Path, folder: Path, patient: str, tables: Mapping[str, str]) -> Rows:
    """Read a clinical table and join further ones to it.

    Args:
        table: The clinical table.
        folder: Folder of the further tables.
        patient: Column of the patient ID in the clinical table.
        tables: Column of the patient ID of each further table, by file name.

    Raises:
        DataError: A file cannot be read, or the tables cannot be joined.
    """
    rows = read_rows(table)
    for name, column in tables.items():
        rows = join_rows(rows, read_rows(folder / name), patient, column)
    return rows


def join_rows(rows: Rows, other: Rows, patient: str, column: str) -> Rows:
    """Join two tables; patients of either are kept, and a warning names those that one of them lacks.

    A column that both have is read once if its cells agree.

    Args:
        rows: The first table.
        other: The table to join.
        patient: Column of the patient ID in the first table.
        column: Column of the patient ID in the other table.

    Raises:
        DataError: A table has no such column, a row without a patient ID, a patient twice, or no patient of the other;
            or cells of a column that both have differ.
    """
    first, second = _index(rows, patient), _index(other, column)
    common = [name for name in first if name in second]
    if not common:
        raise DataError(
            f"{rows.file} and {other.file} have no patient in common: {join_names([*first])} in the one, "
            f"{join_names([*second])} in the other. Write the patient IDs in the same way in both."
        )
    shared = [name for name in other.columns if name in rows.columns and name not in (patient, column)]
    if column != patient and patient in other.columns:
        raise DataError(f"{other.file} also has a column {patient!r}, the patient ID of {rows.file}. Rename it.")
    if column != patient and column in rows.columns:
        raise DataError(f"{rows.file} also has a column {column!r}, the patient ID of {other.file}. Rename it.")
    for name in shared:
        _require_equal(name, first, second, (rows.file, other.file))
    added = [name for name in other.columns if name != column and name not in rows.columns]
    columns = (*rows.columns, *added)
    empty = dict.fromkeys(columns, "")
    joined = [
        {**empty, **_merge(first.get(name, {}), second.get(name, {}), columns), patient: name}
        for name in dict.fromkeys((*first, *second))
    ]
    notes = (*rows.notes, *(f"{other.file}: {note}" for note in other.notes), *_describe_shared(shared, rows, other))
    warnings = (*rows.warnings, *other.warnings, *_describe_unmatched(rows, other, first, second))
    return Rows(rows.file, columns, tuple(joined), notes, warnings, (*rows.joined, other.file))


def _merge(own: Mapping[str, str], other: Mapping[str, str], columns: Sequence[str]) -> dict[str, str]:
    """Return the cells of a patient; an empty cell of one table comes from the other."""
    filled = {**other, **{name: cell for name, cell in own.items() if cell.strip()}}
    return {name: filled[name] for name in columns if name in filled}


def _index(rows: Rows, patient: str) -> _Cells:
    """Return the rows by patient."""
    if patient == ROW_NUMBER:
        raise DataError(f"{rows.file} has no column of the patient ID, by which tables are joined. Name it: `patient`.")
    if patient not in rows.columns:
        raise DataError(
            f"{rows.file} has no column {patient!r} of the patient ID; it has {', '.join(rows.columns)}. Correct "
            "`patient` or `tables` in the schema."
        )
    # A spreadsheet writes the patient 1 as 1.0 where the column has an empty cell.
    names = [_DECIMALS.sub("", cell.strip()) for cell in rows.column(patient)]
    nameless = [str(number) for number, name in enumerate(names, 1) if normalise_cell(name) in MISSING]
    if nameless:
        raise DataError(f"{rows.file} has no patient ID in row(s) {join_names(nameless)}. Fill it in.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        where = ", ".join(str(number) for number, name in enumerate(names, 1) if name == twice[0])
        raise DataError(
            f"{rows.file} has several rows of {len(twice)} patient(s), such as {twice[0]!r} (rows {where}); expected "
            "one row per patient. Keep the correct row."
        )
    return dict(zip(names, rows.rows, strict=True))


def _require_equal(name: str, first: _Cells, second: _Cells, files: Sequence[str]) -> None:
    """Require that the cells of a column that both tables have agree, where neither is empty."""
    for patient in (patient for patient in first if patient in second):
        cells = [normalise_cell(table[patient][name]) for table in (first, second)]
        if cells[0] != cells[1] and all(cells):
            raise DataError(
                f"Both {files[0]} and {files[1]} have a column {name!r}, and it differs: {first[patient][name]!r} and "
                f"{second[patient][name]!r} of patient {patient!r}. Rename or remove one of them."
            )


def _describe_shared(shared: Sequence[str], rows: Rows, other: Rows) -> list[str]:
    if not shared:
        return []
    listed = join_names([*map(repr, shared)])
    return [f"The column(s) {listed} of {rows.file} and {other.file} agree, and are read once."]


def _describe_unmatched(rows: Rows, other: Rows, first: _Cells, second: _Cells) -> list[str]:
    texts = []
    for one, own, lacking, theirs in ((rows, first, other, second), (other, second, rows, first)):
        names = [name for name in own if name not in theirs]
        if names:
            text = f"{len(names)} of {len(own)} patients of {one.source} are not in {lacking.source}: "
            texts.append(f"{text}{join_names(names)}. Their values there are missing.")
    return texts
