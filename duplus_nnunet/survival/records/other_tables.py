"""Reads clinical tables of other patients than a model was fitted to, as the schema beside such a table says."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.survival.records.endpoints import choose_endpoint
from duplus_nnunet.survival.records.joined_tables import read_joined
from duplus_nnunet.survival.records.schema import ClinicalSchema, CovariateForm, normalise_cell, read_schemas
from duplus_nnunet.survival.records.table import Rows

# What a schema beside the table may say in place of the schema of the model.
_OWN = ("patient", "centre", "time", "event", "entry", "exclude", "missing")


@dataclass(frozen=True)
class OtherTable:
    """A table, and how it is read.

    Attributes:
        rows: Its cells, with those of the tables that are joined to it.
        schema: Covariates of the model; patient, outcome, centre and rules of rows of this table.
        notes: Remarks for the reader.
    """

    rows: Rows
    schema: ClinicalSchema
    notes: tuple[str, ...]


def read_other_table(file: Path, schema: ClinicalSchema) -> OtherTable:
    """Read a table with the columns that a model was trained with.

    Patient, outcome and missing values are read as the schema beside the table says (the same name with the ending
    .yaml), or else as that of the model; the covariates are those of the model. Tables that either joins are joined, if
    they lie beside the table.

    Args:
        file: Clinical table.
        schema: Schema that the model was trained with.

    Raises:
        DataError: A file cannot be read or joined, or the schema beside the table is invalid.
    """
    notes, beside = list[str](), file.with_suffix(".yaml")
    absent = [name for name in schema.tables if not (file.parent / name).exists()]
    tables = {} if absent else schema.tables
    if beside.exists():
        schemas = read_schemas(beside)
        own = choose_endpoint(beside, schemas, schema.endpoint if len(schemas) > 1 else None)
        notes.append(f"Patient, time, event, centre and rules of rows are read as {beside} says.")
        notes += _compare_endpoints(schema, own, beside)
        covariates, remarks = _take_markers(schema.covariates, own.covariates, beside)
        notes += remarks
        absent, tables = [] if own.tables else absent, own.tables or tables
        schema = schema.model_copy(update={**{name: getattr(own, name) for name in _OWN}, "covariates": covariates})
    rows = read_joined(file, file.parent, schema.patient, tables)
    if absent and any(name not in rows.columns for name in schema.covariates):
        listed = ", ".join(absent)
        notes.append(f"In training, {listed} was joined to the table; it does not lie beside {file}, and is not read.")
    return OtherTable(rows, schema, tuple(notes))


def _compare_endpoints(schema: ClinicalSchema, own: ClinicalSchema, file: Path) -> list[str]:
    """Say where the outcome of a table seems to be another one than a model predicts."""
    trained, here = schema.endpoint or schema.event.column, own.endpoint or own.event.column
    named = schema.endpoint is not None and own.endpoint is not None
    if normalise_cell(trained) == normalise_cell(here) or (not named and schema.event.column == own.event.column):
        return []
    return [
        f"The model predicts {trained!r}; the outcome of this table is {here!r}, as {file} says. Unless both are the "
        "same event, scores say nothing of the model."
    ]


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
