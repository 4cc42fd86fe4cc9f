"""Joins the clinical tables of a download to clinical.csv, and writes clinical.yaml with the meaning of its columns."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from duplus_nnunet.conversion.recipe import Clinical
from duplus_nnunet.conversion.templates import find_paths
from duplus_nnunet.errors import DataError
from duplus_nnunet.files import write_text
from duplus_nnunet.survival.records.schema import MISSING, SCHEMA_NAME, TABLE_NAME, ClinicalSchema
from duplus_nnunet.table_files import read_csv, write_csv

Rows = dict[str, dict[str, str]]

_HEAD = "# Written by `duplus convert` from {tables}; see `duplus survival check`.\n"


def write_clinical(clinical: Clinical, root: Path, folder: Path) -> list[str]:
    """Write clinical.csv and clinical.yaml into a dataset.

    Patients without an outcome, whose time or event is missing, are left out.

    Args:
        clinical: The recipe's description of the tables.
        root: The download.
        folder: The dataset.

    Returns:
        What was done, a sentence each.

    Raises:
        DataError: Tables contradict each other, or lack the columns of the patient, the time or the event.
    """
    found = {template: next((path for _, path in find_paths(root, template)), None) for template in clinical.tables}
    files = [path for path in found.values() if path is not None]
    if len(files) < len(found):
        missing = ", ".join(template for template, path in found.items() if path is None)
        return [f"No clinical table was written: the download has no {missing}."]
    patient = str(clinical.meaning["patient"])
    rows = _join([(file, _read(file, patient)) for file in files])
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    schema = ClinicalSchema.model_validate(clinical.meaning)
    outcome = [*schema.time.columns, schema.event.column]
    lacking = [column for column in outcome if column not in columns]
    if lacking:
        raise DataError(f"{files[-1]} has no column {lacking[0]!r}; there are {', '.join(map(repr, columns))}.")
    kept = {name: row for name, row in rows.items() if not any(_is_missing(row.get(column, "")) for column in outcome)}
    write_csv(folder / TABLE_NAME, [columns, *([row.get(column, "") for column in columns] for row in kept.values())])
    names = ", ".join(file.name for file in files)
    meaning = _keep_columns(clinical.meaning, columns)
    text = yaml.safe_dump(meaning, sort_keys=False, allow_unicode=True)
    write_text(folder / SCHEMA_NAME, _HEAD.format(tables=names) + text)
    notes = [f"{TABLE_NAME}: {len(kept)} patients of {names}."]
    if len(kept) < len(rows):
        notes.append(f"{TABLE_NAME}: {len(rows) - len(kept)} patients without {' or '.join(outcome)} were left out.")
    return notes


def _read(file: Path, patient: str) -> Rows:
    """Read the rows of a table by patient."""
    table = read_csv(file, "Download it again.")
    if patient not in table.columns:
        raise DataError(f"{file} has no column {patient!r}; it has {', '.join(map(repr, table.columns))}.")
    rows: Rows = {}
    for row in table.rows:
        cells = dict(zip(table.columns, row.cells, strict=False))
        name = cells.get(patient, "")
        if not name or name in rows:
            what = f"a second row of {name!r}" if name else f"no {patient!r}"
            raise DataError(f"{file}:{row.line}: {what}; expected one row a patient. Correct the table.")
        rows[name] = cells
    return rows


def _join(tables: Sequence[tuple[Path, Rows]]) -> Rows:
    """Join the rows of each patient; a cell that one table lacks comes from the others."""
    joined: Rows = {}
    for file, rows in tables:
        for patient, row in rows.items():
            known = joined.setdefault(patient, {})
            for column, cell in row.items():
                if not known.get(column):
                    known[column] = cell
                elif cell and cell != known[column]:
                    raise DataError(
                        f"{file}: {column!r} of {patient!r} is {cell!r}, and {known[column]!r} in another table. "
                        "Correct one of them."
                    )
    return joined


def _keep_columns(meaning: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Leave out covariates that the tables do not have."""
    covariates = {name: form for name, form in meaning.get("covariates", {}).items() if name in columns}
    centre = {"centre": None} if meaning.get("centre") not in columns else {}
    kept = {**meaning, "covariates": covariates, **centre}
    return {key: value for key, value in kept.items() if value is not None}


def _is_missing(cell: str) -> bool:
    return cell.strip().casefold() in MISSING
