"""Reads and validates clinical.yaml, the schema that says what the columns of a clinical table mean.

Example:
    patient: patient
    time: {column: time_rfs, unit: days}
    event: {column: event_relapse, seen: [1], censored: [0]}
    covariates:
      age: {type: numeric}
      grade: {type: ordinal, order: [Low, Intermediate, High]}
"""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from duplus_nnunet.errors import DataError, list_nearest_first
from duplus_nnunet.survival.records.endpoints import (
    KEY,
    EndpointError,
    choose_endpoint,
    locate,
    split_endpoints,
)
from duplus_nnunet.yaml_files import Keys, MarkedYaml, Problem, read_marked_yaml

SCHEMA_NAME, TABLE_NAME = "clinical.yaml", "clinical.csv"
# The Gregorian year has 365.2425 days; survival programs commonly use 365.25.
DAYS = {"days": 1.0, "weeks": 7.0, "months": 30.4375, "years": 365.25}
# In place of the column of the patient ID: the patients of a table without identifiers are numbered by row.
ROW_NUMBER = "row number"
MISSING = (
    *("", "na", "n/a", "nan", "none", "null", "unknown", "missing", "?", "."),
    *("#n/a", "<na>", "n.a.", "not available", "not reported", "not recorded", "not evaluated"),
    *("[not available]", "[not reported]", "[not evaluated]", "[unknown]"),
)

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
# The content of a cell; YAML reads some as numbers or booleans.
Code = Annotated[Text | bool | int | float, Field(description="cell value")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TimeForm(_Strict):
    """Time to the event or the end of follow-up: one column of numbers, or two columns of dates.

    Attributes:
        column: Column of the time from the start to the event or the end of follow-up.
        unit: Unit of that column.
        otherwise: Column that is read where the first (`column`, or `end`) is empty, such as the last contact of
            patients without the event; of the same unit or format.
        start: Column of the start date.
        end: Column of the date of the event or of the end of follow-up.
        format: Format of both dates, for Python's strptime.
    """

    column: Text | None = None
    unit: Literal["days", "weeks", "months", "years"] = "days"
    start: Text | None = None
    end: Text | None = None
    otherwise: Text | None = None
    format: Text = "%Y-%m-%d"

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        dates = (self.start, self.end)
        if dates == (None, None) if self.column is not None else None not in dates:
            return self
        raise ValueError("give either `column` (and `unit`), or `start` and `end` (and `format`)")

    @model_validator(mode="after")
    def _format_can_be_read(self) -> Self:
        try:
            datetime.strptime(datetime(2000, 1, 2, tzinfo=UTC).strftime(self.format), self.format)
        except (ValueError, re.error) as error:
            raise ValueError(
                f"`format` is {self.format!r}, which cannot parse a date ({error}). Use each directive once, as in "
                "'%Y-%m-%d' or '%d.%m.%Y'"
            ) from error
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return tuple(name for name in (self.column, self.start, self.end, self.otherwise) if name is not None)

    def describe(self) -> str:
        """Say in Markdown from which columns the time is read, and in which unit.

        Example:
            >>> TimeForm(start="a", end="b", otherwise="c").describe()
            'from `a` to `b`, or to `c` where `b` is empty'
        """
        dates = self.start is not None
        last = str(self.end if dates else self.column)
        text = f"from `{self.start}` to `{last}`" if dates else f"`{last}`"
        text += f", or {'to ' if dates else ''}`{self.otherwise}` where `{last}` is empty" if self.otherwise else ""
        return text if dates else f"{text}, in {self.unit}"


class EventForm(_Strict):
    """Event status at the end of that time.

    Attributes:
        column: Column of the codes.
        seen: Codes of the event to be predicted.
        censored: Codes of censoring: follow-up ended without the event.
        competing: Codes of competing events, which make the event impossible, such as death from another cause.
    """

    column: Text
    seen: list[Code] = Field(min_length=1)
    censored: list[Code] = Field(min_length=1)
    competing: list[Code] = []

    @model_validator(mode="after")
    def _codes_differ(self) -> Self:
        codes = [normalise_cell(code) for code in (*self.seen, *self.censored, *self.competing)]
        twice = sorted({code for code in codes if codes.count(code) > 1})
        if twice:
            raise ValueError(f"the code {twice[0]!r} is listed more than once")
        return self


class CovariateForm(_Strict):
    """Type of one covariate.

    Attributes:
        type: numeric, categorical, or ordinal.
        order: Values of an ordinal covariate, lowest first.
        missing: Missing-value markers, in addition to those of the schema.
    """

    type: Literal["numeric", "categorical", "ordinal"]
    order: list[Code] = []
    missing: list[Code] = []

    @model_validator(mode="after")
    def _has_an_order_if_ordinal(self) -> Self:
        values = [normalise_cell(value) for value in self.order]
        if self.type == "ordinal" and len(set(values)) < 2:
            raise ValueError("an ordinal covariate needs `order`, its values from the lowest to the highest")
        if self.type != "ordinal" and values:
            raise ValueError(f"`order` is allowed for ordinal covariates only; this covariate is {self.type}")
        if len(set(values)) < len(values):
            raise ValueError("`order` lists a value twice")
        return self


class ClinicalSchema(_Strict):
    """The content of clinical.yaml.

    Attributes:
        patient: Column of the patient ID, one row per patient; "row number" numbers the rows instead.
        centre: Column of the hospital, or None.
        time: Time to the event or the end of follow-up.
        event: Event status at that time.
        entry: Column of the delayed entry (left truncation), in the unit of `time`, or None.
        cases: Regular expression whose one group is the patient ID in nnU-Net's case identifier; None: the case
            identifier is the patient ID.
        missing: Missing-value markers of all columns, instead of the default ones; empty cells are always missing. Case
            is ignored. A value in an `order` is never missing.
        covariates: Covariates, by column.
        ignored: Columns that are not used, each with the reason.
        horizons: Times at which survival is evaluated, calibrated and predicted, in the unit of `time` (dates: days);
            empty: chosen by the rule of `records.horizons`.
        endpoint: Name of the endpoint, or None. A file with several has `endpoints`, each with a name, and below it
            `time`, `event` and `horizons`, instead of these keys.
        tables: Further tables that are joined by patient: file name, in the folder of the schema, and column of the
            patient ID.
        imputations: Number of multiple imputations of missing covariates in each training part, 2 to 100; 0: missing
            values become the mean or the most frequent category, with an indicator.
        exclude: Rows that are left out, counted and named, instead of being errors: those whose time is missing or 0,
            or whose event is missing. Default: none.
    """

    patient: Text
    centre: Text | None = None
    time: TimeForm
    event: EventForm
    entry: Text | None = None
    cases: Text | None = None
    missing: list[Code] = list(MISSING)
    covariates: dict[Text, CovariateForm] = {}
    ignored: dict[Text, Text] = {}
    exclude: list[Literal["time missing", "time 0", "event missing"]] = []
    horizons: list[float | int] = []
    endpoint: Text | None = None
    tables: dict[Text, Text] = {}
    imputations: int = Field(default=0, ge=0, le=100)

    @model_validator(mode="after")
    def _imputations_differ(self) -> Self:
        if self.imputations == 1:
            raise ValueError(
                "`imputations` is 1; a single imputation hides how uncertain it is. Give 5 or more, or 0 for indicators"
            )
        return self

    @property
    def horizons_in_days(self) -> tuple[float, ...]:
        """Horizons in days, ascending."""
        unit = 1.0 if self.time.column is None else DAYS[self.time.unit]
        return tuple(float(time) * unit for time in self.horizons)

    @model_validator(mode="after")
    def _horizons_ascend(self) -> Self:
        steps = (0.0, *map(float, self.horizons), math.inf)
        if not all(earlier < later for earlier, later in pairwise(steps)):
            raise ValueError(
                f"`horizons` is {self.horizons}; expected distinct times above 0 in ascending order, in the unit of "
                "`time`"
            )
        return self

    @model_validator(mode="after")
    def _columns_have_one_use(self) -> Self:
        columns = list(self.list_columns())
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise ValueError(f"the column {twice[0]!r} is used in more than one place")
        if self.cases is not None:
            _check_pattern(self.cases)
        return self

    @model_validator(mode="after")
    def _tables_are_beside_it(self) -> Self:
        apart = [name for name in self.tables if Path(name).name != name]
        if apart:
            raise ValueError(f"`tables` names {apart[0]!r}; expected the name of a file in the folder of the schema")
        return self

    def list_columns(self) -> Iterator[str]:
        """List every column that the schema names."""
        single = (self.patient, self.centre, self.entry, self.event.column)
        yield from (name for name in single if name is not None)
        yield from self.time.columns
        yield from self.covariates
        yield from self.ignored

    def find_patient(self, case: str) -> str | None:
        """Return the patient ID in a case identifier; None if `cases` does not match."""
        if self.cases is None:
            return case
        match = re.search(self.cases, case)
        return None if match is None else match[1]


@lru_cache(maxsize=1 << 16, typed=True)
def list_spellings(code: object) -> frozenset[str]:
    """List the normalised spellings of a code in a cell; YAML reads yes, no, on and off as booleans."""
    if isinstance(code, bool):
        return frozenset(("true", "yes", "on") if code else ("false", "no", "off"))
    return frozenset((normalise_cell(code),))


@lru_cache(maxsize=1 << 16, typed=True)
def normalise_cell(value: object) -> str:
    """Normalise a cell or a code: 1, "1", "1.0" and " 1 " become the same, and so do True and "true".

    Example:
        >>> [normalise_cell(value) for value in (1, "1.0", " Yes ", 0.5)]
        ['1', '1', 'yes', '0.5']
    """
    text = str(value).strip().casefold()
    try:
        number = float(text)
    except ValueError:
        return text
    return repr(int(number)) if number.is_integer() else repr(number)


def read_schema(file: Path, endpoint: str | None = None) -> ClinicalSchema:
    """Read the schema of one endpoint.

    Args:
        file: A clinical.yaml.
        endpoint: Name of the endpoint; None: the only one.

    Raises:
        DataError: The file is missing or invalid, where the message lists all problems, one per line; or the endpoint
            is unknown, or is one of several and not named.
    """
    return choose_endpoint(file, read_schemas(file), endpoint)


def read_schemas(file: Path) -> dict[str, ClinicalSchema]:
    """Read the schemas of all endpoints of a clinical.yaml, by name; "" stands for an endpoint without one.

    Raises:
        DataError: The file is missing or invalid; the message lists all problems, one per line.
    """
    if not file.is_file():
        table, source = file.with_name(TABLE_NAME), file.parent.name
        if file.name != SCHEMA_NAME or not (file.parent / "dataset.json").is_file():
            table = next((path for path in sorted(file.parent.glob(f"{file.stem}.*"))), file.with_suffix(".csv"))
            source = f"--table {table}"
        raise DataError(
            f"{file}, the schema of {table.name}, does not exist. Create a draft with `duplus survival draft "
            f"{source}`, and correct it."
        )
    marks = read_marked_yaml(file)
    if marks.problems:
        raise DataError("\n".join(map(str, marks.problems)))
    content = marks.data if marks.data is not None else {}
    if not isinstance(content, Mapping) or KEY not in content:
        schema = _validate(marks, {"": content})[""]
        return {schema.endpoint or "": schema}
    try:
        return _validate(marks, split_endpoints(content))
    except EndpointError as error:
        raise DataError(str(_locate_problem(marks, error.keys, error.text))) from None


def _validate(marks: MarkedYaml, contents: Mapping[str, Any]) -> dict[str, ClinicalSchema]:
    """Validate the content of each endpoint.

    Raises:
        DataError: The message lists all problems, each once.
    """
    schemas: dict[str, ClinicalSchema] = {}
    problems: dict[str, None] = {}
    for name, content in contents.items():
        try:
            schemas[name] = ClinicalSchema.model_validate(content)
        except ValidationError as error:
            # Each alternative of a union reports its own error; the last one is kept.
            own = {_shorten(marks, locate(name, tuple(details["loc"]))): dict(details) for details in error.errors()}
            problems |= {str(_describe_error(marks, keys, details)): None for keys, details in own.items()}
    if problems:
        raise DataError("\n".join(problems))
    return schemas


def _check_pattern(text: str) -> None:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"`cases` is {text!r}, which is not a valid regular expression ({error})") from error
    if groups != 1:
        raise ValueError(f"`cases` is {text!r} with {groups} groups; expected one, the patient, as in '^([^_]+)_'")


def _shorten(marks: MarkedYaml, keys: Keys) -> Keys:
    """Drop the steps of pydantic's path that are not keys of the file; a missing first key is kept."""
    return tuple(key for depth, key in enumerate(keys) if depth == 0 or keys[: depth + 1] in marks.lines)


def _describe_error(marks: MarkedYaml, keys: Keys, error: dict[str, Any]) -> Problem:
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden" and len(keys) == 1:
        listed = ", ".join(list_nearest_first(str(keys[0]), (*ClinicalSchema.model_fields, KEY)))
        text = f"Unknown key. Did you mean one of: {listed}?"
    elif error["type"] == "missing":
        text = f"{error['loc'][-1]!r} is missing"
    return _locate_problem(marks, keys, text)


def _locate_problem(marks: MarkedYaml, keys: Keys, text: str) -> Problem:
    where = " -> ".join(map(str, keys))
    return Problem(marks.file, marks.line_of(keys), f"{where}: {text}." if where else f"{text}.")
