"""Patients whose outcome is not known: in come a table without outcomes and who was imaged, out come records.

What a value lacks does not end a prediction: it counts as missing, and a warning says so. What leaves open whose a row
or an image is does end it.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.encoding import ColumnCode, RecordEncoder
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Record, Rows, is_missing, read_value

_SHOWN = 8
# Standard deviations from the training patients' mean beyond which a number is rather of another unit.
_FAR = 5.0


@dataclass(frozen=True)
class NewPatients:
    """Who is to be foretold.

    Attributes:
        records: One a patient, in the order of the table, then those that were imaged only; outcomes are NaN.
        listed: Patients that have a row.
        warnings: What a reader has to know of one, by patient.
        notes: What a reader has to know of all.
    """

    records: tuple[Record, ...]
    listed: frozenset[str]
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_new_patients(rows: Rows | None, schema: ClinicalSchema, imaged: Collection[str]) -> NewPatients:
    """Read the records of new patients; columns of time, event, entry and centre are not needed.

    Args:
        rows: Their table; None: there is none.
        schema: That the model was trained with.
        imaged: Patients that have an image.

    Raises:
        DataError: The table is of another schema, a row is of nobody, a patient has two, or nobody in it was imaged
            though others were.
    """
    if rows is None:
        return NewPatients(tuple(_know_nothing(patient) for patient in sorted(imaged)), frozenset())
    absent = _check_columns(rows, schema)
    _check_patients(rows, schema, imaged)
    records, warnings = [], {}
    for number, row in enumerate(rows.rows, 1):
        record, found = _read_row(number, row, schema)
        records.append(record)
        warnings[record.patient] = tuple(found)
    listed = frozenset(record.patient for record in records)
    alone = sorted(set(imaged) - listed)
    notes = [f"The table has no column {name!r}; it counts as missing in everybody." for name in absent]
    return NewPatients((*records, *map(_know_nothing, alone)), listed, warnings, tuple(notes))


def _know_nothing(patient: str) -> Record:
    return Record(0, patient, "", math.nan, "")


def _check_columns(rows: Rows, schema: ClinicalSchema) -> list[str]:
    """Return the covariates that the table does not have."""
    wanted = list(schema.covariates)
    absent = [name for name in wanted if name not in rows.columns]
    expected = f"the patient in {schema.patient!r}, covariates {', '.join(map(repr, wanted)) or '(none)'}"
    has = f"{rows.file} has the columns {', '.join(map(repr, rows.columns))}"
    if schema.patient not in rows.columns:
        raise DataError(f"{has}; the model was trained with {expected}. Give the column of patients that name.")
    if wanted and len(absent) == len(wanted):
        raise DataError(
            f"{has}, none of which the model was trained with: {expected}. It is of another table: give the right "
            "model, or name the columns as there. Without --clinical, images alone are used."
        )
    return absent


def _check_patients(rows: Rows, schema: ClinicalSchema, imaged: Collection[str]) -> None:
    patients = rows.column(schema.patient)
    nobody = [str(number) for number, patient in enumerate(patients, 1) if is_missing(patient, schema)]
    if nobody:
        raise DataError(f"{rows.file}: no patient in {schema.patient!r} of row(s) {_say(nobody)}. Fill it in.")
    twice = [patient for patient, count in Counter(patients).items() if count > 1]
    if twice:
        where = ", ".join(str(number) for number, patient in enumerate(patients, 1) if patient == twice[0])
        raise DataError(
            f"{rows.file}: {len(twice)} patient(s) have several rows, first {twice[0]!r} (rows {where}); expected one "
            "row a patient. Keep the right one."
        )
    if imaged and not set(imaged) & set(patients):
        pattern = f"the pattern {schema.cases!r} finds" if schema.cases is not None else "the case identifiers say"
        raise DataError(
            f"No patient of {rows.file} has an image: it lists {_say(sorted(patients))}, the images are of "
            f"{_say(sorted(imaged))}, as {pattern}. Name images and patients alike, or predict them in two runs."
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
            warnings.append(f"{str(error).split(';')[0].split('. ')[0]}: it counts as missing")
    known = schema.centre in row if schema.centre is not None else False
    centre = row[str(schema.centre)] if known and not is_missing(row[str(schema.centre)], schema) else ""
    return Record(number, row[schema.patient], centre, math.nan, "", 0.0, values), warnings


def find_out_of_range_values(record: Record, encoders: Sequence[RecordEncoder]) -> tuple[str, ...]:
    """Say in what a record differs from all that the models were trained on, a sentence each.

    Args:
        record: Of one patient.
        encoders: Of the models' folds; what one of them says is said.
    """
    found = [
        sentence
        for encoder in encoders
        for column in encoder.columns
        if (sentence := _judge(column, record.values.get(column.name)))
    ]
    return tuple(dict.fromkeys(found))


def _judge(column: ColumnCode, value: float | str | None) -> str:
    if value is None:
        return "" if column.marks_missing else f"{column.name!r} is missing, and was of nobody trained on"
    if column.categories:
        known = column.find_category(value) is not None
        return "" if known else f"{column.name!r} is {value!r}, which nobody trained on has; the commonest counts"
    if column.scale > 0 and abs(float(value) - column.mean) > _FAR * column.scale:
        return f"{column.name!r} is {value:g}, more than {_FAR:g} standard deviations from those trained on"
    return ""


def _say(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
