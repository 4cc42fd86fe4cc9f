"""What the columns of a clinical table mean: clinical.yaml goes in, a checked schema or every problem come out.

Example:
    patient: patient
    time: {column: time_rfs, unit: days}
    event: {column: event_relapse, seen: [1], censored: [0]}
    covariates:
      age: {type: numeric}
      grade: {type: ordinal, order: [Low, Intermediate, High]}
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from duplus_nnunet.errors import DataError, list_nearest_first
from duplus_nnunet.prompt_registry.marked_yaml import Keys, MarkedYaml, Problem, read_marked_yaml

SCHEMA_NAME, TABLE_NAME = "clinical.yaml", "clinical.csv"
# Source of the lengths: the Gregorian year has 365.2425 days; survival programs commonly take 365.25.
DAYS = {"days": 1.0, "weeks": 7.0, "months": 30.4375, "years": 365.25}
MISSING = ("", "na", "n/a", "nan", "none", "null", "unknown", "missing", "?", ".")

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
# As it stands in a cell; YAML makes numbers and truth values of some.
Code = Text | bool | int | float


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TimeForm(_Strict):
    """How long a patient was followed: a column of numbers, or two of dates.

    Attributes:
        column: Column of the time from the start to the event or the end of follow-up.
        unit: Of that column.
        start: Column of the date from which time counts.
        end: Column of the date of the event or of the end of follow-up.
        format: Of both dates, as Python's strptime takes it.
    """

    column: Text | None = None
    unit: Literal["days", "weeks", "months", "years"] = "days"
    start: Text | None = None
    end: Text | None = None
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
                f"`format` is {self.format!r}, which no date can be read by ({error}). Use each part once, as in "
                "'%Y-%m-%d' or '%d.%m.%Y'"
            ) from error
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it reads."""
        return tuple(name for name in (self.column, self.start, self.end) if name is not None)


class EventForm(_Strict):
    """What happened at the end of that time.

    Attributes:
        column: Column of the codes.
        seen: Codes of the event that is to be predicted.
        censored: Codes of the end of follow-up without it.
        competing: Codes of other events that make it impossible, such as death from another cause.
    """

    column: Text
    seen: list[Code] = Field(min_length=1)
    censored: list[Code] = Field(min_length=1)
    competing: list[Code] = []

    @model_validator(mode="after")
    def _codes_differ(self) -> Self:
        codes = [plain(code) for code in (*self.seen, *self.censored, *self.competing)]
        twice = sorted({code for code in codes if codes.count(code) > 1})
        if twice:
            raise ValueError(f"the code {twice[0]!r} stands in more than one place")
        return self


class CovariateForm(_Strict):
    """One covariate.

    Attributes:
        type: numeric, categorical, or ordinal.
        order: Values of an ordinal one, lowest first.
        missing: What means that a value is not known, beside the schema's own.
    """

    type: Literal["numeric", "categorical", "ordinal"]
    order: list[Code] = []
    missing: list[Code] = []

    @model_validator(mode="after")
    def _has_an_order_if_ordinal(self) -> Self:
        values = [plain(value) for value in self.order]
        if self.type == "ordinal" and len(set(values)) < 2:
            raise ValueError("an ordinal covariate needs `order`, its values from the lowest to the highest")
        if self.type != "ordinal" and values:
            raise ValueError(f"`order` is for ordinal covariates, and this one is {self.type}")
        if len(set(values)) < len(values):
            raise ValueError("`order` names a value twice")
        return self


class ClinicalSchema(_Strict):
    """A whole clinical.yaml.

    Attributes:
        patient: Column that says who the patient is; one row a patient.
        centre: Column of the hospital, or None.
        time: How long a patient was followed.
        event: What happened then.
        entry: Column of the time, in the same unit, at which a patient came under observation (left truncation).
        cases: Regular expression that finds the patient in nnU-Net's case identifier, by its one group; None: a case
            is a patient.
        missing: What means in any column that a value is not known, beside an empty cell, instead of the usual markers;
            upper and lower case are the same. What stands in an `order` is known.
        covariates: By column.
        ignored: Columns that are not used, and why.
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

    @model_validator(mode="after")
    def _columns_have_one_use(self) -> Self:
        columns = list(self.list_columns())
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise ValueError(f"the column {twice[0]!r} is used in more than one place")
        if self.cases is not None:
            _check_pattern(self.cases)
        return self

    def list_columns(self) -> Iterator[str]:
        """Name every column that the schema speaks of."""
        single = (self.patient, self.centre, self.entry, self.event.column)
        yield from (name for name in single if name is not None)
        yield from self.time.columns
        yield from self.covariates
        yield from self.ignored

    def find_patient(self, case: str) -> str | None:
        """Find the patient in a case identifier; None if the pattern does not fit."""
        if self.cases is None:
            return case
        found = re.search(self.cases, case)
        return None if found is None else found[1]


def spell(code: object) -> frozenset[str]:
    """Give the ways in which a code may stand in a cell; YAML makes truth values of yes and no."""
    if isinstance(code, bool):
        return frozenset(("true", "yes", "on") if code else ("false", "no", "off"))
    return frozenset((plain(code),))


def plain(value: object) -> str:
    """Write a cell or a code so that 1, "1", "1.0" and " 1 " are the same, and so are True and "true"."""
    text = str(value).strip().casefold()
    try:
        number = float(text)
    except ValueError:
        return text
    return repr(int(number)) if number.is_integer() else repr(number)


def read_schema(file: Path) -> ClinicalSchema:
    """Read a clinical.yaml.

    Raises:
        DataError: It is not there, or anything is wrong with it; the message holds all problems, one a line.
    """
    if not file.is_file():
        raise DataError(
            f"{file}, which says what the columns of {TABLE_NAME} mean, is not there. Draft it by `duplus survival "
            f"draft {file.parent.name}`, and correct it."
        )
    marks = read_marked_yaml(file)
    problems = list(marks.problems)
    if not problems:
        try:
            return ClinicalSchema.model_validate(marks.data if marks.data is not None else {})
        except ValidationError as error:
            # Where one of several types may stand, each of them complains: the last says enough.
            found = {_shorten(marks, tuple(one["loc"])): one for one in error.errors()}
            problems += [_say(marks, keys, dict(one)) for keys, one in found.items()]
    raise DataError("\n".join(map(str, problems)))


def _check_pattern(text: str) -> None:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"`cases` is {text!r}, which is no regular expression ({error})") from error
    if groups != 1:
        raise ValueError(f"`cases` is {text!r} with {groups} groups; mark the patient by one, as in '^([^_]+)_'")


def _shorten(marks: MarkedYaml, keys: Keys) -> Keys:
    """Leave out of pydantic's path what does not stand in the file; a key that is missing there stays."""
    return tuple(key for place, key in enumerate(keys) if place == 0 or keys[: place + 1] in marks.lines)


def _say(marks: MarkedYaml, keys: Keys, error: dict[str, Any]) -> Problem:
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden" and len(keys) == 1:
        listed = ", ".join(list_nearest_first(str(keys[0]), ClinicalSchema.model_fields))
        text = f"Unknown key. Did you mean one of: {listed}?"
    elif error["type"] == "missing":
        text = f"{error['loc'][-1]!r} is missing"
    where = " -> ".join(map(str, keys))
    return Problem(marks.file, marks.line_of(keys), f"{where}: {text}." if where else f"{text}.")
