"""Warns of values that are hardly possible: ages over 120, dates as covariates, centres that are spelled twice."""

import difflib
import re
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from duplus_nnunet.survival.records.column_names import split_name
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Finding, Record, join_names
from duplus_nnunet.survival.records.time_units import MOST_DAYS
from duplus_nnunet.table_files import is_number

# Possible values by a word of the name of a numeric column: ages in years, weight in kg, the scales' own ranges.
_RANGES = {"age": (0, 120), "weight": (1, 500), "bmi": (8, 110), "karnofsky": (0, 100), "kps": (0, 100), "ecog": (0, 5)}
# Numbers that stand for a missing value in tables of other programs.
_CODES = (-9, -99, -999, -9999, 999, 9999, 99999, 999999)
# The same of codes and counts, whose values are few whole numbers.
_SHORT_CODES = (-1, 9, 98, 99)
_MOST_CODED = 12
_FAR = 3  # times the largest other value
# A number with a sign or a unit, such as <0.1 or 72 kg.
_MARKED_NUMBER = re.compile(
    r"([<>\u2264\u2265~]=?\s*)?\d+([.,]\d+)?\s*(%|(kg|g|mg|[µu]g|ng|cm|mm|m|ml|dl|l|h|days?|weeks?|months?|years?|yrs?)"
    r"(/[a-zµ0-9]+)?)?", re.IGNORECASE
)  # fmt: skip
_LEAST_DIFFERENT = 5
_LEAST_NUMBERS = 10  # different numbers that are hardly a code
_SHORT_DAYS, _LEAST_PATIENTS = 60, 20
_ALIKE = 0.8  # share of characters in common
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})|\d{1,2}[- ]?[a-z]{3,9}[- ]?(\d{4}|\d{2})"
    r"|(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01]))([ t]\d{1,2}:.*)?",
    re.IGNORECASE,
)
_DATE_SHARE = 0.9


def are_dates(cells: Sequence[str]) -> bool:
    """Whether nearly all known cells of a column are dates."""
    return sum(_DATE.fullmatch(cell.strip()) is not None for cell in cells) >= max(1, _DATE_SHARE * len(cells))


def check_values(schema: ClinicalSchema, records: Sequence[Record]) -> Iterable[Finding]:
    """Warn of values that are hardly possible."""
    yield from _check_times(schema, records)
    for name, form in schema.covariates.items():
        values = [value for record in records if (value := record.values[name]) is not None]
        cells = [f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value) for value in values]
        if form.type != "ordinal" and are_dates(cells):
            text = f"{name!r} has dates: a date of follow-up encodes the outcome. Move it to `ignored`."
            yield Finding("warning", text)
        if form.type == "numeric":
            known = [(float(value), record) for record in records if (value := record.values[name]) is not None]
            yield from _check_range(name, known)
            yield from _check_codes(name, known)
        if form.type == "categorical":
            yield from _check_marked_numbers(name, [str(value) for value in values])
    yield from _check_centres(sorted({record.centre for record in records} - {""}))


def _check_times(schema: ClinicalSchema, records: Sequence[Record]) -> Iterable[Finding]:
    long = [record for record in records if record.time > MOST_DAYS]
    if long:
        listed = join_names([f"{record.patient} ({record.time:,.0f} days)" for record in long])
        yield Finding("warning", f"Follow-up of more than 60 years: {listed}. Correct these rows, or `time: unit`.")
    longest = max(record.time for record in records)
    if schema.time.column is not None and longest < _SHORT_DAYS and len(records) >= _LEAST_PATIENTS:
        yield Finding(
            "warning",
            f"The longest time is {longest:g} days, as `time: unit` is {schema.time.unit}. Correct the unit if the "
            "times are in weeks, months or years.",
        )


def _check_range(name: str, known: Sequence[tuple[float, Record]]) -> Iterable[Finding]:
    for word in split_name(name) & {*_RANGES}:
        low, high = _RANGES[word]
        outside = [(value, record) for value, record in known if not low <= value <= high]
        if outside:
            listed = join_names([f"{record.patient} ({value:g})" for value, record in outside])
            text = f"{name!r} is outside {low} to {high}: {listed}. Correct these cells, or leave them empty."
            yield Finding("warning", text)


def _check_codes(name: str, known: Sequence[tuple[float, Record]]) -> Iterable[Finding]:
    numbers = np.array([value for value, _ in known])
    coded = len(set(numbers)) <= _MOST_CODED and all(float(number).is_integer() for number in numbers)
    for code in (*_CODES, *(_SHORT_CODES if coded else _SHORT_CODES[:1])):
        others = np.abs(numbers[numbers != code])
        negative_alone = code < 0 and len(others) > 0 and (numbers[numbers != code] >= 0).all()
        if code in numbers and len(others) and (negative_alone or abs(code) >= _FAR * max(others.max(), 1)):
            count = int((numbers == code).sum())
            yield Finding(
                "warning",
                f"{name!r} is {code} in {count} patient(s), far from all other values. If it stands for a missing "
                f"value, add it to the covariate: `missing: [{code}]`.",
            )


def _check_marked_numbers(name: str, values: Sequence[str]) -> Iterable[Finding]:
    """Warn of numbers that are categories, because of a sign or a unit or for another reason."""
    marked = [value for value in values if _MARKED_NUMBER.fullmatch(value)]
    signs = [value for value in marked if not is_number(value)]
    if signs and len(set(marked)) >= _LEAST_DIFFERENT and len(marked) >= _DATE_SHARE * len(values):
        text = (
            f"{name!r} is categorical, but its values are numbers, {len(signs)} of them with a sign or a unit, such as "
            f"{signs[0]!r}: as categories they have no order. Write them without it, and make the type numeric."
        )
        yield Finding("warning", text)
        return
    numbers = {value for value in values if is_number(value)}
    others = sorted({*values} - numbers)
    if len(numbers) >= _LEAST_NUMBERS and sum(value in numbers for value in values) >= len(values) / 2:
        listed = f", the others ({join_names([*map(repr, others)])}) in `missing`" if others else ""
        text = (
            f"{name!r} is categorical, but {len(numbers)} of its different values are numbers: as categories they have "
            f"no order. If they are measurements, make the type numeric{listed}."
        )
        yield Finding("warning", text)


def _check_centres(centres: Sequence[str]) -> Iterable[Finding]:
    for one, other in combinations(centres, 2):
        same_digits = re.findall(r"\d+", one) == re.findall(r"\d+", other)
        close = difflib.SequenceMatcher(None, one.casefold(), other.casefold()).ratio() >= _ALIKE
        if same_digits and close and min(len(one), len(other)) > 3:
            yield Finding("warning", f"The centres {one!r} and {other!r} have nearly the same name. Are they the same?")
