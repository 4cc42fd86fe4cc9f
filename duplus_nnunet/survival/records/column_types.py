"""Guesses the type of each covariate of a clinical table, and which columns cannot be one."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from duplus_nnunet.survival.records.checking import are_identifiers, is_identifier_name
from duplus_nnunet.survival.records.column_names import is_known_later
from duplus_nnunet.survival.records.column_roles import NUMERIC_SHARE, measure_numeric_share
from duplus_nnunet.survival.records.plausible_values import are_dates
from duplus_nnunet.survival.records.schema import MISSING, normalise_cell
from duplus_nnunet.survival.records.table import Rows
from duplus_nnunet.table_files import is_number

_NONE = "none"  # a missing-value marker that can also be a value: of a treatment, for example
_ORDERS = (
    ("low", "intermediate", "high"), ("low", "medium", "high"), ("low", "moderate", "high"),
    ("mild", "moderate", "severe"), (_NONE, "mild", "moderate", "severe"),
    ("i", "ii", "iii", "iv"), ("g1", "g2", "g3", "g4"), ("t0", "t1", "t2", "t3", "t4"), ("n0", "n1", "n2", "n3"),
)  # fmt: skip
_LEAST_PATIENTS = 8
# Of a column of numbers: different ones at least, and words that are no numbers at most.
_LEAST_NUMBERS, _MOST_MARKERS = 10, 3
# Words of counts, also of `duplus survival features`.
_COUNT = re.compile(r"(?<![a-z])(lesions|nodes|metastases|count|number)(?![a-z])")


def sort_columns(rows: Rows, used: set[str | None]) -> dict[str, Any]:
    """Sort the columns that are not used otherwise into covariates, by type, and ignored ones, with the reason."""
    covariates: dict[str, Mapping[str, Any]] = {}
    ignored: dict[str, str] = {}
    for name in rows.columns:
        if name in used:
            continue
        cells = [cell for cell in rows.column(name) if normalise_cell(cell)]
        reason = _find_reason_to_ignore(name, cells, rows.columns)
        if reason:
            ignored[name] = reason
        else:
            covariates[name] = _infer_type(name, cells)
    return {"covariates": covariates, **({"ignored": ignored} if ignored else {})}


def _find_reason_to_ignore(name: str, cells: Sequence[str], names: Sequence[str]) -> str:
    known = [cell for cell in cells if normalise_cell(cell) not in MISSING]
    categories = {normalise_cell(cell) for cell in known}
    if not known:
        return "missing in all patients"
    if len(categories) == 1 and not _is_one_word_or_none(cells):
        markers = sorted({cell for cell in cells if normalise_cell(cell) in MISSING})
        missing = f" (read as missing: {', '.join(map(repr, markers))})" if markers else ""
        return f"constant{missing}"
    if is_known_later(name, names):
        return (
            "the name suggests that it is known only after treatment began, as the event or time of another endpoint is"
        )
    if are_dates(known):
        return "dates: a date of follow-up encodes the outcome; of a date before treatment, add the years as a number"
    if is_identifier_name(name):
        return "the name is that of an identifier"
    share = measure_numeric_share(cells)
    if share < NUMERIC_SHARE and len(categories) == len(known) >= _LEAST_PATIENTS:
        return "a unique value in each patient"
    if share == 1 and are_identifiers([*map(float, known)]):
        return "a unique integer in each patient, like an identifier"
    return ""


def _is_one_word_or_none(cells: Sequence[str]) -> bool:
    """Whether the values are one word and "none", as of a treatment that some patients had."""
    words = {normalise_cell(cell) for cell in cells} - ({*MISSING} - {_NONE})
    return len(words) == 2 and _NONE in words and not any(map(is_number, words))


def _is_measure(name: str, values: Collection[str]) -> bool:
    """Whether two different numbers are measures or counts; others are a code, such as 1 and 2 for sex."""
    return bool(_COUNT.search(name.casefold())) or any(not value.isdigit() for value in values if is_number(value))


def _are_numbers_and_markers(values: Collection[str], texts: Sequence[str]) -> bool:
    """Whether many different numbers stand beside a few words, which then mean that a value is missing ("k.A.")."""
    words = len(texts) <= _MOST_MARKERS and not any(character.isdigit() for text in texts for character in text)
    return words and len(values) - len(texts) >= _LEAST_NUMBERS


def _infer_type(name: str, cells: Sequence[str]) -> dict[str, Any]:
    categories = {normalise_cell(cell) for cell in cells} - {*MISSING}
    spellings = {normalise_cell(cell): cell for cell in cells}
    if _is_one_word_or_none(cells) and len(categories) == 1:
        return {"type": "ordinal", "order": [spellings[value] for value in (_NONE, *categories)]}
    candidates = (categories | {_NONE} if _NONE in spellings else categories, categories)
    order = next((order for values in candidates for order in _ORDERS if values <= set(order)), None)
    if order is not None:
        return {"type": "ordinal", "order": [spellings[value] for value in order if value in spellings]}
    texts = sorted(spellings[value] for value in categories if not is_number(value))
    numeric = measure_numeric_share(cells) >= NUMERIC_SHARE or _are_numbers_and_markers(categories, texts)
    if not numeric or (len(categories) <= 2 and not _is_measure(name, categories)):
        return {"type": "categorical"}
    return {"type": "numeric", **({"missing": texts} if texts else {})}
