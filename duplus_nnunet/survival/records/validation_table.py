"""Reads the clinical table of patients in whom a saved model is validated: their covariates and outcomes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.checking import check
from duplus_nnunet.survival.records.new_patients import check_columns
from duplus_nnunet.survival.records.other_tables import read_other_table
from duplus_nnunet.survival.records.schema import ROW_NUMBER, ClinicalSchema
from duplus_nnunet.survival.records.table import COMPETING, Record, Rows, join_names, number_rows

# Advice of the check of a training table, which the table of a fixed model cannot follow.
_ADVICE = re.compile(r" (If (it is one|so), move it|Move it) to `ignored`[^.]*\.")


@dataclass(frozen=True)
class ValidationTable:
    """Patients of a validation.

    Attributes:
        name: Name of the table.
        records: One for each patient, with outcomes.
        notes: Remarks for the reader.
        patient: Column of the patient ID.
    """

    name: str
    records: tuple[Record, ...]
    notes: tuple[str, ...]
    patient: str = ""


def read_validation_table(file: Path, trained: ClinicalSchema) -> ValidationTable:
    """Read a table with the columns that a model was trained with.

    The columns and codes of the outcome are those of the schema beside the table (the same name with the ending .yaml),
    or else those of the model; the covariates are those of the model. Tables that either joins are joined, if they lie
    beside the table.

    Args:
        file: Clinical table.
        trained: Schema that the model was trained with.

    Raises:
        DataError: The table does not fit, or a row cannot be read; the message names such rows.
    """
    beside, table = file.with_suffix(".yaml"), read_other_table(file, trained)
    notes = [*table.notes, *_compare_competing(trained, table.schema)]
    rows, schema = table.rows, table.schema.model_copy(update={"ignored": {}, "cases": None})
    rows = number_rows(rows, schema.patient)
    absent = check_columns(rows, schema)
    notes += [f"The table has no column {name!r}; it is treated as missing in all patients." for name in absent]
    optional = {name: None for name in ("centre", "entry") if getattr(schema, name) not in rows.columns}
    if schema.entry is not None and "entry" in optional:
        notes.append(f"The table has no column {schema.entry!r}: all patients are taken to be at risk from time 0.")
    schema = schema.model_copy(update=optional)
    report = check(_fill(rows, absent), schema, [])
    errors = [finding.text for finding in report.findings if finding.severity == "error"]
    if errors:
        listed = "\n".join(f"- {error}" for error in errors)
        hint = f"say so in {beside}, which `duplus survival draft --table {file}` drafts."
        hint = f"\nThe table is read as the model's was. If its columns, codes or unit of time are others, {hint}"
        raise DataError(f"{file} cannot be used to validate the model:\n{listed}{'' if beside.exists() else hint}")
    warnings = [finding.text for finding in report.findings if finding.severity == "warning"]
    notes += [_ADVICE.sub("", text) for text in warnings if trained.event.competing or COMPETING not in text]
    return ValidationTable(file.stem, report.records, (*rows.notes, *notes), schema.patient)


def _compare_competing(trained: ClinicalSchema, schema: ClinicalSchema) -> list[str]:
    """Say where a model and the outcome of a table differ in whether events compete."""
    model, table = bool(trained.event.competing), bool(schema.event.competing)
    if model and not table:
        return [
            "The model predicts the probability of the event beside competing events, and no competing event is "
            "declared in this table: if they are among the censored, predictions are compared with a probability that "
            "is too high. Declare them: `competing` below `event` in the schema beside the table."
        ]
    if table and not model:
        return [
            "The model was fitted without competing events: it predicts the probability of the event as if no other "
            "event could come before it, which is higher than what is observed here, where others do."
        ]
    return []


def _fill(rows: Rows, absent: Sequence[str]) -> Rows:
    """Add absent columns, with empty cells."""
    empty = dict.fromkeys(absent, "")
    return replace(rows, columns=(*rows.columns, *absent), rows=tuple({**row, **empty} for row in rows.rows))


def describe_overlap(known: Sequence[str], patients: int, columns: Sequence[str] = ()) -> str:
    """Return a warning of patients whom the model was fitted to; empty if there are none.

    Args:
        known: Those patients.
        patients: Number of patients of the table.
        columns: Columns of the patient ID in training and here, if they are known.
    """
    if ROW_NUMBER in columns:
        return (
            "Patients have numbers of rows instead of IDs, so that it cannot be told whether the model was fitted to "
            "some of them. If it was, the scores are too good."
        )
    if not known:
        return ""
    return (
        f"{len(known)} of {patients} patients have the ID of a patient whom the model was fitted to: "
        f"{join_names(sorted(known))}. If they are the same patients, the scores are too good; leave them out. If not, "
        "give the patients other IDs."
    )
