"""Reads the clinical table of patients in whom a saved model is validated: their covariates and outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.checking import check
from duplus_nnunet.survival.records.endpoints import choose_endpoint
from duplus_nnunet.survival.records.joined_tables import read_joined
from duplus_nnunet.survival.records.new_patients import check_columns
from duplus_nnunet.survival.records.schema import (
    ROW_NUMBER,
    ClinicalSchema,
    CovariateForm,
    normalise_cell,
    read_schemas,
)
from duplus_nnunet.survival.records.table import Record, Rows, join_names, number_rows

# What a schema beside the table may say in place of the schema of the model.
_OWN = ("patient", "centre", "time", "event", "entry", "exclude", "missing")


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


def read_validation_table(file: Path, schema: ClinicalSchema) -> ValidationTable:
    """Read a table with the columns that a model was trained with.

    The columns and codes of the outcome are those of the schema beside the table (the same name with the ending .yaml),
    or else those of the model; the covariates are those of the model. Tables that either joins are joined, if they lie
    beside the table.

    Args:
        file: Clinical table.
        schema: Schema that the model was trained with.

    Raises:
        DataError: The table does not fit, or a row cannot be read; the message lists all such rows.
    """
    notes, beside = list[str](), file.with_suffix(".yaml")
    tables = schema.tables if all((file.parent / name).exists() for name in schema.tables) else {}
    if beside.exists():
        schemas = read_schemas(beside)
        own = choose_endpoint(beside, schemas, schema.endpoint if len(schemas) > 1 else None)
        schema, tables = schema.model_copy(update={name: getattr(own, name) for name in _OWN}), own.tables
        notes.append(f"Patient, time, event, centre and rules of rows are read as {beside} says.")
        covariates, remarks = _take_markers(schema.covariates, own.covariates, beside)
        schema, notes = schema.model_copy(update={"covariates": covariates}), notes + remarks
    rows = read_joined(file, file.parent, schema.patient, tables)
    schema = schema.model_copy(update={"ignored": {}, "cases": None})
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
    notes += [finding.text for finding in report.findings if finding.severity == "warning"]
    return ValidationTable(file.stem, report.records, (*rows.notes, *notes), schema.patient)


def _take_markers(
    covariates: Mapping[str, CovariateForm], beside: Mapping[str, CovariateForm], file: Path
) -> tuple[dict[str, CovariateForm], list[str]]:
    """Add the missing-value markers of covariates in the schema beside the table to those of the model's schema.

    Returns:
        The covariates of the model, and remarks on what else the schema beside the table says of them.
    """
    taken, notes = {}, list[str]()
    for name, form in covariates.items():
        own = beside.get(name, form)
        known = {*map(normalise_cell, form.missing)}
        more = [marker for marker in own.missing if normalise_cell(marker) not in known]
        taken[name] = form.model_copy(update={"missing": [*form.missing, *more]})
        if more:
            notes.append(f"{name!r}: {', '.join(map(repr, more))} is read as missing, as {file} says.")
        if own.type != form.type:
            notes.append(f"{name!r} is {own.type} in {file}; it is read as {form.type}, as in training.")
    return taken, notes


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
