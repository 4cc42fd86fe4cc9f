"""A clinical table, one row a patient: in come clinical.csv and its schema, out come records, and what is wrong.

Nothing is dropped silently: what cannot be read is a finding, and stays out of the records.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.schema import DAYS, ClinicalSchema, CovariateForm, plain, spell
from duplus_nnunet.table_files import read_csv

Severity = Literal["error", "warning", "note"]
SEEN, CENSORED = "seen", "censored"
LATE_ENTRY = (
    "Kaplan-Meier, the networks but for the loss 'cox', and the pairs that concordance compares count patients from "
    "their entry on. Cox, Coxnet and the forest count them from time 0, as if no event before an entry had been "
    "missed, so that survival looks too good to them. So do AUC, Brier score and the weights of censoring: they "
    "favour methods that do the same. There is no log-rank test."
)


@dataclass(frozen=True)
class Finding:
    """Something that a reader of the table has to know.

    Attributes:
        severity: error: no training with this table; warning: look at it; note: a fact.
        text: What was found, and what to do.
    """

    severity: Severity
    text: str


@dataclass(frozen=True)
class Rows:
    """A table as it stands in its file.

    Attributes:
        file: Where it was read.
        columns: Their names, in order.
        rows: Cells by column; the first is on line 2 of the file.
    """

    file: str
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        return [row[name] for row in self.rows]


@dataclass(frozen=True)
class Record:
    """One patient.

    Attributes:
        row: Number of the row, from 1.
        patient: Who it is.
        centre: Hospital; empty if the table does not tell.
        time: Days from the start to the event or the end of follow-up, above 0.
        event: SEEN, CENSORED, or the code of a competing event.
        entry: Days at which the patient came under observation, 0 or more and below `time`.
        values: Covariates: numbers, texts, or for an ordinal one its place in the order from 0; None if not known.
            Texts that mean the same, such as 1 and 1.0, stand as most cells of the table have them.
    """

    row: int
    patient: str
    centre: str
    time: float
    event: str
    entry: float = 0.0
    values: Mapping[str, float | str | None] = field(default_factory=dict)


def read_rows(file: Path) -> Rows:
    """Read a CSV file with a header; cells are separated by commas, semicolons or tabs.

    Raises:
        DataError: It cannot be read, a quote is not closed, it has no rows, names a column twice, or rows differ in
            length.
    """
    table = read_csv(file, "Put the clinical table there.")
    if not table.rows:
        lines = len(table.rows) + bool(table.columns)
        raise DataError(f"{file} has {lines} line(s); expected a header and one row a patient.")
    columns = table.columns
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice or "" in columns:
        raise DataError(f"{file} has {'a column without a name' if '' in columns else f'two columns {twice[0]!r}'}.")
    for number, row in enumerate(table.rows, 1):
        if len(row.cells) != len(columns):
            raise DataError(
                f"Row {number} of {file} has {len(row.cells)} cells, the header {len(columns)}. Quote cells that hold "
                f"{table.delimiter!r}, and fill in what is missing."
            )
    return Rows(str(file), columns, tuple(dict(zip(columns, row.cells, strict=True)) for row in table.rows))


def read_records(rows: Rows, schema: ClinicalSchema) -> tuple[list[Record], list[Finding]]:
    """Read every row by a schema.

    Returns:
        The records of rows that could be read, and an error for each one that could not.

    Raises:
        DataError: The schema names a column that the table does not have.
    """
    absent = [name for name in schema.list_columns() if name not in rows.columns]
    if absent:
        raise DataError(
            f"The schema names the column(s) {', '.join(map(repr, absent))}, which {rows.file} does not have; it has "
            f"{', '.join(rows.columns)}. Correct the schema, or draft it again."
        )
    records, findings = [], []
    for number, row in enumerate(rows.rows, 1):
        try:
            records.append(_read_record(number, row, schema))
        except ValueError as error:
            findings.append(Finding("error", f"Row {number} ({row[schema.patient] or 'no patient'}): {error}"))
    return _spell_alike(records, schema), findings


def _spell_alike(records: Sequence[Record], schema: ClinicalSchema) -> list[Record]:
    """Write equal values of categorical covariates, such as 1 and 1.0, or F and f, as most cells do."""
    spelt: dict[str, dict[str, str]] = {}
    for name in (name for name, form in schema.covariates.items() if form.type == "categorical"):
        counts = Counter(str(record.values[name]) for record in records if record.values[name] is not None)
        rising = sorted(counts, key=lambda value: (counts[value], value))
        spelt[name] = {plain(value): value for value in rising}  # of several, the commonest stays
    return [
        replace(record, values={name: _respell(value, spelt.get(name)) for name, value in record.values.items()})
        for record in records
    ]


def _respell(value: float | str | None, spelt: Mapping[str, str] | None) -> float | str | None:
    return value if value is None or spelt is None else spelt[plain(value)]


def is_missing(cell: str, schema: ClinicalSchema, form: CovariateForm | None = None) -> bool:
    """Whether a cell means that the value is not known."""
    if not cell.strip():
        return True
    if form is not None and any(plain(cell) in spell(value) for value in form.order):
        return False
    markers = (*schema.missing, *(form.missing if form is not None else ()))
    return any(plain(cell) in spell(marker) for marker in markers)


def _read_record(number: int, row: Mapping[str, str], schema: ClinicalSchema) -> Record:
    patient = row[schema.patient]
    if is_missing(patient, schema):
        raise ValueError("no patient. Fill it in")
    time = _read_time(row, schema)
    if not 0 < time < math.inf:
        raise ValueError(f"the time is {time:g} days; it must be above 0")
    entry = 0.0
    if schema.entry is not None and not is_missing(row[schema.entry], schema):
        entry = _read_number(schema.entry, row[schema.entry]) * DAYS[schema.time.unit]
        if not 0 <= entry < time:
            raise ValueError(f"the entry is at {entry:g} days, the end at {time:g}; it must be 0 or more and before it")
    values = {name: read_value(name, row[name], form, schema) for name, form in schema.covariates.items()}
    centre = "" if schema.centre is None or is_missing(row[schema.centre], schema) else row[schema.centre]
    return Record(number, patient, centre, time, _read_event(row, schema), entry, values)


def _read_time(row: Mapping[str, str], schema: ClinicalSchema) -> float:
    form = schema.time
    for name in form.columns:
        if is_missing(row[name], schema):
            raise ValueError(f"{name!r} is missing. Fill it in, or take the row out")
    if form.column is not None:
        return _read_number(form.column, row[form.column]) * DAYS[form.unit]
    start, end = (_read_date(name, row[name], form.format) for name in form.columns)
    return (end - start).total_seconds() / 86400


def _read_date(name: str, cell: str, form: str) -> datetime:
    try:
        return datetime.strptime(cell, form)
    except ValueError as error:
        raise ValueError(f"{name!r} is {cell!r}, which is no date of the form {form!r} (`time: format`)") from error


def _read_number(name: str, cell: str) -> float:
    try:
        number = float(cell)
    except ValueError as error:
        raise ValueError(f"{name!r} is {cell!r}; expected a number (a point before decimals)") from error
    if not math.isfinite(number):
        raise ValueError(f"{name!r} is {cell!r}; expected a finite number")
    return number


def _read_event(row: Mapping[str, str], schema: ClinicalSchema) -> str:
    form, cell = schema.event, row[schema.event.column]
    for kind, codes in ((SEEN, form.seen), (CENSORED, form.censored), (None, form.competing)):
        for code in codes:
            if plain(cell) in spell(code):
                return kind or plain(cell)
    if is_missing(cell, schema):
        how = f", which means missing: {cell!r}" if cell else ""
        raise ValueError(f"{form.column!r} is missing{how}. Fill it in, or take the row out")
    known = ", ".join(repr(code) for code in (*form.seen, *form.censored, *form.competing))
    raise ValueError(
        f"{form.column!r} is {cell!r}; the schema knows {known}. Declare it as `seen`, `censored` or, if it is another "
        "event that makes this one impossible, `competing`"
    )


def read_value(name: str, cell: str, form: CovariateForm, schema: ClinicalSchema) -> float | str | None:
    """Read a covariate's cell; None: it is not known.

    Raises:
        ValueError: It is not of the covariate's form.
    """
    if is_missing(cell, schema, form):
        return None
    read: dict[str, Callable[[], float | str]] = {
        "numeric": lambda: _read_number(name, cell),
        "categorical": lambda: cell,
        "ordinal": lambda: _read_place(name, cell, form),
    }
    return read[form.type]()


def _read_place(name: str, cell: str, form: CovariateForm) -> float:
    places = [place for place, value in enumerate(form.order) if plain(cell) in spell(value)]
    if not places:
        listed = ", ".join(map(repr, form.order))
        raise ValueError(f"{name!r} is {cell!r}, which is not in its order {listed}. Add it there, or to `missing`")
    return float(places[0])
