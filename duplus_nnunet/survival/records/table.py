"""Reads a clinical table, one row per patient, into records by its schema; each row that cannot be read is reported."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.decimal_marks import read_marks
from duplus_nnunet.survival.records.schema import (
    DAYS,
    ROW_NUMBER,
    ClinicalSchema,
    CovariateForm,
    list_spellings,
    normalise_cell,
)
from duplus_nnunet.table_files import read_csv

Severity = Literal["error", "warning", "note"]
# Values of `Record.event`; the first is the event to be predicted.
SEEN, CENSORED = "seen", "censored"
LATE_ENTRY = (
    "Delayed entry (left truncation) is taken into account by Kaplan-Meier, Cox, hazard ratios, the networks with "
    "every loss but 'cox', and in the pairs that concordance compares. Coxnet, the random survival forest, ICARE and "
    "Fine-Gray do not support it: they treat patients as at risk from time 0, and so overestimate survival. The AUC, "
    "the Brier score and the IPCW weights do the same, and favour these methods. No log-rank test is computed."
)
COMPETING = (
    "Survival stands for the probability of being free of the event, 1 - cumulative incidence; a competing event does "
    "not end it. Methods combine a model of the event with one of the competing events; 'Kaplan-Meier' is the "
    "Aalen-Johansen estimate. Concordance is Wolbers', and the calibration slope that of a Fine-Gray model."
)
_SHOWN = 8
_TOO_LARGE = 1e30


def join_names(names: Sequence[str]) -> str:
    """Join names for a message: the first eight, and the number of the others."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


@dataclass(frozen=True)
class Finding:
    """One result of checking a clinical table.

    Attributes:
        severity: error: the table cannot be used for training; warning: the result may be wrong; note: information.
        text: What was found, and what to do.
    """

    severity: Severity
    text: str


@dataclass(frozen=True)
class Rows:
    """The cells of a table, as text.

    Attributes:
        file: File that the table was read from.
        columns: Names of the columns, in file order.
        rows: Cells by column name, one mapping per row; the header is not among them.
        notes: How the file was read, where that is not as usual: its encoding, its delimiter, its decimal marks.
        warnings: What may be wrong with the table as a whole, such as patients that a joined table lacks.
        joined: Files of the tables that were joined to it.
    """

    file: str
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Its file, and those of the tables that were joined to it, for readers."""
        *others, last = self.file, *self.joined
        return f"{', '.join(others)} or {last}" if others else last

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        return [row[name] for row in self.rows]


@dataclass(frozen=True)
class Record:
    """Outcome and covariates of one patient.

    Attributes:
        row: Number of the row in the table, from 1; 0 for a patient without a row.
        patient: Patient ID.
        centre: Hospital; empty if unknown.
        time: Days from the start to the event or the end of follow-up, above 0.
        event: SEEN, CENSORED, or the code of a competing event.
        entry: Delayed entry, in days, 0 or more and below `time`.
        values: Covariate values by column: a number, a text, or the rank of an ordinal value from 0; None if missing.
            Equivalent spellings of a category, such as 1 and 1.0, are replaced by the most common one.
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

    Numbers with a decimal comma or with marks between thousands are rewritten with a decimal point. A first column
    without a name, as pandas writes its index, is called "Unnamed: 0".

    Raises:
        DataError: It cannot be read, a quote is not closed, it has no rows, names a column twice, or rows differ in
            length.
    """
    table = read_csv(file, "Put the clinical table there.", legacy=True)
    if not table.rows:
        lines = len(table.rows) + bool(table.columns)
        raise DataError(f"{file} has {lines} line(s); expected a header and one row a patient.")
    columns = ("Unnamed: 0", *table.columns[1:]) if table.columns[0] == "" else table.columns
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice or "" in columns:
        raise DataError(f"{file} has {'a column without a name' if '' in columns else f'two columns {twice[0]!r}'}.")
    for number, row in enumerate(table.rows, 1):
        if len(row.cells) != len(columns):
            raise DataError(
                f"Row {number} of {file} has {len(row.cells)} cells, the header {len(columns)}. Quote cells that hold "
                f"{table.delimiter!r}, and fill in what is missing."
            )
    cells = [dict(zip(columns, row.cells, strict=True)) for row in table.rows]
    rows, notes = read_marks(str(file), columns, cells)
    named = {";": "semicolons", "\t": "tabs"}.get(table.delimiter)
    form = ([f"Cells are separated by {named}."] if named else []) + (
        [f"The text is read as {table.encoding}."] if table.encoding != "UTF-8" else []
    )
    return Rows(str(file), columns, rows, (*form, *notes))


def number_rows(rows: Rows, patient: str) -> Rows:
    """Add the column of row numbers, from 1, if it is the patient column and the table does not have it."""
    if patient != ROW_NUMBER or ROW_NUMBER in rows.columns:
        return rows
    numbered = tuple({**row, ROW_NUMBER: str(number)} for number, row in enumerate(rows.rows, 1))
    return replace(rows, columns=(*rows.columns, ROW_NUMBER), rows=numbered)


def read_records(rows: Rows, schema: ClinicalSchema) -> tuple[list[Record], list[Finding]]:
    """Read all rows of a table.

    Returns:
        Records of the rows that could be read, an error for those that could not (one for all rows with the same
        fault), and a warning for each rule of `exclude` by which rows were left out.

    Raises:
        DataError: The schema names a column that the table does not have.
    """
    rows = number_rows(rows, schema.patient)
    absent = [name for name in schema.list_columns() if name not in rows.columns]
    if absent:
        raise DataError(
            f"The schema names the column(s) {', '.join(map(repr, absent))}, which {rows.file} does not have; it has "
            f"the columns {', '.join(rows.columns)}. Correct the schema, or draft it again."
        )
    records, findings = [], []
    excluded, faults = dict[str, list[str]](), dict[str, list[str]]()
    for number, row in enumerate(rows.rows, 1):
        rule = _find_rule(row, schema)
        if rule:
            excluded.setdefault(rule, []).append(row[schema.patient] or f"row {number}")
            continue
        try:
            records.append(_read_record(number, row, schema))
        except ValueError as error:
            faults.setdefault(str(error), []).append(f"{number} ({row[schema.patient] or 'no patient'})")
    for fault, places in faults.items():
        findings.append(Finding("error", f"Row{'s' if len(places) > 1 else ''} {join_names(places)}: {fault}"))
    for rule, patients in excluded.items():
        text = f"{len(patients)} row(s) are left out by `exclude: {rule}`: {join_names(patients)}."
        findings.append(Finding("warning", text))
    records, merged = _unify_centres(_unify_categories(records, schema))
    return records, [*findings, *merged]


def _find_rule(row: Mapping[str, str], schema: ClinicalSchema) -> str:
    """Return the rule of the schema by which a row is left out; empty if there is none."""
    if "event missing" in schema.exclude and is_missing_event(row[schema.event.column], schema):
        return "event missing"
    try:
        time = _read_time(row, schema)
    except ValueError:
        cells = [row[name] for name in schema.time.columns]
        missing = any(is_missing(cell, schema) for cell in cells)
        return "time missing" if missing and "time missing" in schema.exclude else ""
    return "time 0" if time == 0 and "time 0" in schema.exclude else ""


def is_missing_event(cell: str, schema: ClinicalSchema) -> bool:
    """Whether the cell of an event stands for a missing value and is none of the codes."""
    codes = (*schema.event.seen, *schema.event.censored, *schema.event.competing)
    return is_missing(cell, schema) and not any(normalise_cell(cell) in list_spellings(code) for code in codes)


def _unify_centres(records: Sequence[Record]) -> tuple[list[Record], list[Finding]]:
    """Replace spellings of a centre that differ in case, blanks and punctuation only by the most common one."""
    counts = Counter(record.centre for record in records if record.centre)
    groups: dict[str, list[str]] = {}
    for centre in sorted(counts, key=lambda name: (-counts[name], name)):
        groups.setdefault(re.sub(r"[\W_]+", "", centre.casefold()) or centre, []).append(centre)
    names = {centre: group[0] for group in groups.values() for centre in group}
    findings = [
        Finding("note", f"The centre {group[0]!r} is also written {', '.join(map(repr, group[1:]))}: read as one.")
        for group in groups.values()
        if len(group) > 1
    ]
    return [replace(record, centre=names.get(record.centre, record.centre)) for record in records], findings


def _unify_categories(records: Sequence[Record], schema: ClinicalSchema) -> list[Record]:
    """Replace equivalent spellings of a category, such as 1 and 1.0 or F and f, by the most common one."""
    spellings: dict[str, dict[str, str]] = {}
    for name in (name for name, form in schema.covariates.items() if form.type == "categorical"):
        counts = Counter(str(record.values[name]) for record in records if record.values[name] is not None)
        rising = sorted(counts, key=lambda value: (counts[value], value))
        # the most common one overwrites the others
        spellings[name] = {normalise_cell(value): value for value in rising}
    return [
        replace(record, values={name: _unify(value, spellings.get(name)) for name, value in record.values.items()})
        for record in records
    ]


def _unify(value: float | str | None, spellings: Mapping[str, str] | None) -> float | str | None:
    return value if value is None or spellings is None else spellings[normalise_cell(value)]


def is_missing(cell: str, schema: ClinicalSchema, form: CovariateForm | None = None) -> bool:
    """Whether a cell stands for a missing value: it is empty, or one of the markers of the schema or the covariate."""
    if not cell.strip():
        return True
    text = normalise_cell(cell)
    if form is not None and any(text in list_spellings(value) for value in form.order):
        return False
    markers = (*schema.missing, *(form.missing if form is not None else ()))
    return any(text in list_spellings(marker) for marker in markers)


def _read_record(number: int, row: Mapping[str, str], schema: ClinicalSchema) -> Record:
    patient = row[schema.patient]
    if is_missing(patient, schema):
        raise ValueError("the patient ID is missing. Fill it in")
    time = _read_time(row, schema)
    if not 0 < time < math.inf:
        advice = ". Correct it, or leave such rows out: `exclude: [time 0]`" if time == 0 else ""
        raise ValueError(f"the time is {time:g} days; it must be above 0{advice}")
    entry = 0.0
    if schema.entry is not None and not is_missing(row[schema.entry], schema):
        entry = _read_number(schema.entry, row[schema.entry]) * DAYS[schema.time.unit]
        if not 0 <= entry < time:
            raise ValueError(
                f"the entry time is {entry:g} days; it must be 0 or more and below the time, {time:g} days"
            )
    values = {name: read_value(name, row[name], form, schema) for name, form in schema.covariates.items()}
    centre = "" if schema.centre is None or is_missing(row[schema.centre], schema) else row[schema.centre]
    return Record(number, patient, centre, time, _read_event(row, schema), entry, values)


def read_given_outcome(row: Mapping[str, str], schema: ClinicalSchema) -> tuple[float, str, float] | None:
    """Read time (days), event and delayed entry (days) of a row that need not have them; None: they are not given.

    Raises:
        ValueError: They are given, and cannot be read.
    """
    columns = (*schema.time.columns, schema.event.column)
    if any(name not in row for name in columns):
        return None
    if all(is_missing(row[name], schema) for name in schema.time.columns) or is_missing_event(
        row[schema.event.column], schema
    ):
        return None
    entry = schema.entry if schema.entry is not None and schema.entry in row else None
    plain = schema.model_copy(update={"covariates": {}, "centre": None, "entry": entry})
    record = _read_record(1, row, plain)
    return record.time, record.event, record.entry


def _read_time(row: Mapping[str, str], schema: ClinicalSchema) -> float:
    form = schema.time
    last = form.column or str(form.end)
    if form.otherwise is not None and is_missing(row[last], schema):
        last = form.otherwise
    return read_end(row, schema, last)


def read_end(row: Mapping[str, str], schema: ClinicalSchema, last: str) -> float:
    """Read the days until a column of the end of follow-up: a time, or a date after that of the start.

    Raises:
        ValueError: A cell is missing or cannot be read.
    """
    form = schema.time
    names = (last,) if form.start is None else (form.start, last)
    for name in names:
        if is_missing(row[name], schema):
            raise ValueError(f"{name!r} is missing. Fill it in, or leave such rows out: `exclude: [time missing]`")
    if form.column is not None:
        return _read_number(names[0], row[names[0]]) * DAYS[form.unit]
    start, end = (_read_date(name, row[name], form.format) for name in names)
    return (end - start).total_seconds() / 86400


def _read_date(name: str, cell: str, form: str) -> datetime:
    try:
        return datetime.strptime(cell, form)
    except ValueError as error:
        raise ValueError(f"{name!r} is {cell!r}; expected a date of the format {form!r} (`time: format`)") from error


def _read_number(name: str, cell: str) -> float:
    try:
        number = float(cell)
    except ValueError as error:
        raise ValueError(f"{name!r} is {cell!r}; expected a number, with a decimal point") from error
    if not math.isfinite(number):
        raise ValueError(f"{name!r} is {cell!r}; expected a finite number")
    if abs(number) >= _TOO_LARGE:
        raise ValueError(
            f"{name!r} is {cell!r}; no measurement is as large, but missing values of Stata and others are. Empty the "
            "cell, or add it to `missing`"
        )
    return number


def _read_event(row: Mapping[str, str], schema: ClinicalSchema) -> str:
    form, cell = schema.event, row[schema.event.column]
    for kind, codes in ((SEEN, form.seen), (CENSORED, form.censored), (None, form.competing)):
        for code in codes:
            if normalise_cell(cell) in list_spellings(code):
                return kind or normalise_cell(cell)
    if is_missing(cell, schema):
        marker = f" ({cell!r} is a missing-value marker)" if cell else ""
        raise ValueError(
            f"{form.column!r} is missing{marker}. Fill it in, or leave such rows out: `exclude: [event missing]`"
        )
    known = ", ".join(repr(code) for code in (*form.seen, *form.censored, *form.competing))
    raise ValueError(
        f"{form.column!r} is {cell!r}; the schema lists the codes {known}. Add it to `seen`, to `censored` or, if it "
        "is another event that makes this one impossible, to `competing`"
    )


def read_value(name: str, cell: str, form: CovariateForm, schema: ClinicalSchema) -> float | str | None:
    """Read the cell of a covariate; None if it is missing.

    Raises:
        ValueError: The cell does not fit the covariate's type.
    """
    if is_missing(cell, schema, form):
        return None
    readers: dict[str, Callable[[], float | str]] = {
        "numeric": lambda: _read_number(name, cell),
        "categorical": lambda: cell,
        "ordinal": lambda: _read_rank(name, cell, form),
    }
    return readers[form.type]()


def _read_rank(name: str, cell: str, form: CovariateForm) -> float:
    ranks = [rank for rank, value in enumerate(form.order) if normalise_cell(cell) in list_spellings(value)]
    if not ranks:
        listed = ", ".join(map(repr, form.order))
        raise ValueError(f"{name!r} is {cell!r}, which is not in its `order` ({listed}). Add it there, or to `missing`")
    return float(ranks[0])
