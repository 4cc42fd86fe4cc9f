"""Reads the records of new patients, whose outcome need not be known.

An unreadable or absent value is treated as missing, with a warning; a row or an image without a known patient is an
error.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import (
    Record,
    Rows,
    is_missing,
    join_names,
    number_rows,
    read_given_outcome,
    read_value,
)


@dataclass(frozen=True)
class NewPatients:
    """The patients to predict.

    Attributes:
        records: One record per patient, in the order of the table, then patients with images only. Where the table has
            no outcome, the time is NaN and the event empty.
        listed: Patients that have a row.
        warnings: Warnings by patient.
        notes: Notes on all patients.
        column: Column of the patient ID; empty without a table.
    """

    records: tuple[Record, ...]
    listed: frozenset[str]
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    column: str = ""


def read_new_patients(
    rows: Rows | None, schema: ClinicalSchema, imaged: Collection[str], remarks: Sequence[str] = ()
) -> NewPatients:
    """Read the records of new patients; columns of time, event, entry and centre are read where they are given.

    Args:
        rows: Cells of their clinical table; None if there is none.
        schema: Covariates of the model, and how the other columns of this table are read; see `read_other_table`.
        imaged: Patients that have an image.
        remarks: Remarks on the table for the reader.

    Raises:
        DataError: The table does not fit the schema, a row has no patient ID, a patient has several rows, or images
            exist but none of a listed patient.
    """
    if rows is None:
        return NewPatients(tuple(_make_empty_record(patient) for patient in sorted(imaged)), frozenset())
    rows = number_rows(rows, schema.patient)
    absent = check_columns(rows, schema)
    _check_patients(rows, schema, imaged)
    records, warnings = [], {}
    for number, row in enumerate(rows.rows, 1):
        record, problems = _read_row(number, row, schema)
        records.append(record)
        warnings[record.patient] = tuple(problems)
    listed = frozenset(record.patient for record in records)
    unlisted = sorted(set(imaged) - listed)
    notes = [*remarks, *rows.notes]
    notes += [f"The table has no column {name!r}; it is treated as missing in all patients." for name in absent]
    return NewPatients((*records, *map(_make_empty_record, unlisted)), listed, warnings, tuple(notes), schema.patient)


def _make_empty_record(patient: str) -> Record:
    return Record(0, patient, "", math.nan, "")


def check_columns(rows: Rows, schema: ClinicalSchema) -> list[str]:
    """Return the covariates that the table does not have.

    Raises:
        DataError: It has no column of the patient ID, or none of the covariates.
    """
    covariates = list(schema.covariates)
    absent = [name for name in covariates if name not in rows.columns]
    expected = (
        f"the patient column {schema.patient!r} and the covariates {', '.join(map(repr, covariates)) or '(none)'}"
    )
    columns = f"{rows.file} has the columns {', '.join(map(repr, rows.columns))}"
    if schema.patient not in rows.columns:
        raise DataError(
            f"{columns}; the model was trained with {expected}. Rename the column of the patient ID, or name it in a "
            "schema beside the table (the same name with the ending .yaml)."
        )
    if covariates and len(absent) == len(covariates):
        raise DataError(
            f"{columns}, but no covariate of the model, which was trained with {expected}. Choose the model of this "
            "table, or rename the columns. Without --clinical, only the images are used."
        )
    return absent


def _check_patients(rows: Rows, schema: ClinicalSchema, imaged: Collection[str]) -> None:
    patients = rows.column(schema.patient)
    nameless = [str(number) for number, patient in enumerate(patients, 1) if is_missing(patient, schema)]
    if nameless:
        raise DataError(
            f"{rows.file} has no patient ID in the column {schema.patient!r} of row(s) {join_names(nameless)}. Fill it "
            "in."
        )
    twice = [patient for patient, count in Counter(patients).items() if count > 1]
    if twice:
        where = ", ".join(str(number) for number, patient in enumerate(patients, 1) if patient == twice[0])
        raise DataError(
            f"{rows.file} has several rows of {len(twice)} patient(s), such as {twice[0]!r} (rows {where}); expected "
            "one row per patient. Keep the correct row."
        )
    if imaged and not set(imaged) & set(patients):
        source = f"the pattern {schema.cases!r}" if schema.cases is not None else "the case identifiers"
        raise DataError(
            f"No patient of {rows.file} has an image. Patients of the table: {join_names(sorted(patients))}; patients "
            f"of the images, by {source}: {join_names(sorted(imaged))}. Use the same patient IDs for images and table, "
            "or predict them in two runs."
        )


def _read_row(number: int, row: Mapping[str, str], schema: ClinicalSchema) -> tuple[Record, list[str]]:
    values: dict[str, float | str | None] = {}
    warnings = []
    for name, form in schema.covariates.items():
        if name not in row:
            values[name] = None
            continue
        try:
            values[name] = read_value(name, row[name], form, schema)
        except ValueError as error:
            values[name] = None
            warnings.append(f"{str(error).split(';')[0].split('. ')[0]}: it is treated as missing")
    known = schema.centre in row if schema.centre is not None else False
    centre = row[str(schema.centre)] if known and not is_missing(row[str(schema.centre)], schema) else ""
    time, event, entry = math.nan, "", 0.0
    try:
        time, event, entry = read_given_outcome(row, schema) or (time, event, entry)
    except ValueError as error:
        warnings.append(f"the outcome cannot be read ({str(error).split(';')[0].split('. ')[0]}): it is left out")
    return Record(number, row[schema.patient], centre, time, event, entry, values), warnings
