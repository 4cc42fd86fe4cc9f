"""Drafts clinical.yaml from a clinical table, for the user to correct.

The schema is inferred from the names and values of columns, never from their association with the outcome.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.survival.records.checking import POST_TREATMENT, are_identifiers, is_identifier_name
from duplus_nnunet.survival.records.schema import MISSING, ClinicalSchema, normalise_cell
from duplus_nnunet.survival.records.table import Rows
from duplus_nnunet.table_files import is_number

_PATIENT = re.compile(r"patient|subject|(^|_)(id|pid|case|mrn)(_|$)", re.IGNORECASE)
_CENTRE = re.compile(r"cent(re|er)|hospital|institut|clinic(_|$)", re.IGNORECASE)
_TIME = re.compile(
    r"(^|_)time|duration|surviv|follow.?up|(^|_)(days|weeks|months|years)|(^|_)[or dpefs]+s_?(t|time)$", re.I
)
_EVENT = re.compile(
    r"event|status|outcome|relaps|recur|progress|death|dead|(?<![a-z])died|deceased|vital", re.IGNORECASE
)
_EVENT_WORDS = ("event", "relaps|recur|progress|death|dead|died|deceased")  # preferred to other names, such as status
_UNITS = {"day": "days", "week": "weeks", "month": "months", "year": "years"}
_SEEN = (
    *("1", "true", "yes", "event", "dead", "died", "death", "deceased", "relapse", "relapsed"),
    *("recurrence", "recurred", "progression", "progressed", "1:deceased", "1:progression", "1:recurred/progressed"),
)  # fmt: skip
_CENSORED = ("0", "false", "no", "censored", "alive", "living", "0:living", "0:censored", "0:diseasefree")
_CAMEL = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_INVERTED = re.compile(r"alive|survived|censor", re.IGNORECASE)  # in such columns, 1 and yes may mean "no event"
# Words of column names that do not identify the event.
_COMMON = frozenset(
    (
        *("time", "times", "event", "events", "status", "state", "code", "survival", "outcome", "t", "to", "of", "in"),
        *("day", "days", "week", "weeks", "month", "months", "year", "years"),
        *("duration", "follow", "followup", "up"),
    )
)
# The name of an entry column has one of these words, and no word of a measurement at entry, such as "age at entry".
_ENTRY = frozenset(("entry", "entered", "enter", "start", "tstart", "truncation", "truncated"))
_BESIDE_ENTRY = _COMMON | {"at", "delayed", "late", "left", "study"}
_NONE = "none"  # a missing-value marker that can also be a value: of a treatment, for example
_ORDERS = (
    ("low", "intermediate", "high"), ("low", "medium", "high"), ("low", "moderate", "high"),
    ("mild", "moderate", "severe"), (_NONE, "mild", "moderate", "severe"),
    ("i", "ii", "iii", "iv"), ("g1", "g2", "g3", "g4"), ("t0", "t1", "t2", "t3", "t4"), ("n0", "n1", "n2", "n3"),
)  # fmt: skip
_NUMERIC_SHARE = 0.9
_LEAST_PATIENTS, _MOST_PREFIXES = 8, 12
_HEADER = """\
# Meaning of the columns of {table}. This is a draft: correct it, then run `duplus survival check`.
# time: time to the event or the end of follow-up. event: codes of the event to be predicted (seen), of follow-up that
# ended without it (censored), and of other events that make it impossible (competing). covariates: numeric, categorical
# or ordinal (with its order, lowest first). ignored: columns that are not used, with the reason.
"""
_LATE = "# entry: time of delayed entry (left truncation); patients are at risk only from then on. Check the column.\n"
_OTHERS = "# Other columns that look like a time or an event: {columns}. Check that the right two were chosen.\n"


@dataclass(frozen=True)
class NamedColumns:
    """Columns and codes that the user named; what is None or empty is inferred.

    Attributes:
        patient: Column of the patient ID.
        time: Column of the time to the event or the end of follow-up.
        event: Column of the event status.
        centre: Column of the hospital.
        seen: Codes of the event.
        censored: Codes of censoring.
    """

    patient: str | None = None
    time: str | None = None
    event: str | None = None
    centre: str | None = None
    seen: tuple[str, ...] = ()
    censored: tuple[str, ...] = ()


def draft(rows: Rows, cases: Sequence[str], named: NamedColumns) -> str:
    """Draft a schema.

    Args:
        rows: Cells of the table.
        cases: Identifiers of cases that have an image.
        named: Columns and codes that are not inferred.

    Returns:
        The text of clinical.yaml, with comments.

    Raises:
        DataError: The patient, the time, the event or its codes cannot be inferred; or a named column or code does not
            exist, or does not make a valid schema.
    """
    for column in (named.patient, named.time, named.event, named.centre):
        if column is not None and column not in rows.columns:
            raise DataError(describe_unknown("column", column, rows.columns))
    patient = named.patient or _require("patient", _rank_patients(rows, cases), rows)[0]
    events, times = _list_events(rows), _list_times(rows, patient)
    event, time = _pair(
        [named.event] if named.event else _require("event", events, rows),
        [named.time] if named.time else _require("time", [name for name in times if name != named.event], rows),
    )
    used = {patient, event, time}
    if len(used) < 3 or named.centre in used:
        listed = ", ".join(map(repr, (patient, time, event, *([named.centre] if named.centre else []))))
        raise DataError(
            f"Patient, time, event and centre must be different columns; the columns are {listed}. Name each once."
        )
    centre = named.centre or next((name for name in rows.columns if name not in used and _CENTRE.search(name)), None)
    entry = _find_entry(rows, time, {patient, event, time, centre})
    content: dict[str, Any] = {
        "patient": patient,
        "centre": centre,
        "entry": entry,
        "time": {"column": time, "unit": _infer_unit(time)},
        "event": {"column": event, **_infer_codes(event, rows.column(event), named)},
        "cases": _infer_pattern(rows.column(patient), cases),
        **_sort_columns(rows, {patient, event, time, centre, entry}),
    }
    content = {key: value for key, value in content.items() if value is not None}
    _check(content)
    others = [name for name in dict.fromkeys((*events, *times)) if name not in (patient, event, time, centre, entry)]
    hint = (_LATE if entry else "") + (_OTHERS.format(columns=", ".join(others)) if others else "")
    return _HEADER.format(table=rows.file) + hint + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _check(content: Mapping[str, Any]) -> None:
    try:
        ClinicalSchema.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(details["msg"].removeprefix("Value error, ") for details in error.errors())
        raise DataError(f"No valid schema can be drafted: {problems}. Name other columns or codes.") from error


def _require(role: str, names: Sequence[str], rows: Rows) -> Sequence[str]:
    if not names:
        raise DataError(
            f"None of the columns {', '.join(rows.columns)} looks like the {role}. Name it: --{role} COLUMN."
        )
    return names


def _pair(events: Sequence[str], times: Sequence[str]) -> tuple[str, str]:
    """Choose the event and the time whose names share most words, such as os_status and os_time."""
    words = {name: _split(name) - _COMMON for name in (*events, *times)}
    pairs = [(event, time) for event in events for time in times if event != time]
    return max(pairs, key=lambda pair: len(words[pair[0]] & words[pair[1]]), default=(events[0], times[0]))


def _rank_patients(rows: Rows, cases: Sequence[str]) -> list[str]:
    """List likely patient columns of unique cells; columns whose cells occur in case identifiers come first."""
    unique = [name for name in rows.columns if len(set(rows.column(name))) == len(rows.rows)]
    likely = [name for name in unique if _PATIENT.search(name)]
    return sorted(likely, key=lambda name: -sum(any(cell in case for case in cases) for cell in rows.column(name)))


def _list_events(rows: Rows) -> list[str]:
    known = {*_SEEN, *_CENSORED}
    events = [
        name
        for name in rows.columns
        if _EVENT.search(name) and {*map(normalise_cell, rows.column(name))} - {*MISSING} <= known
    ]
    return sorted(events, key=lambda name: [re.search(words, name, re.IGNORECASE) is None for words in _EVENT_WORDS])


def _list_times(rows: Rows, patient: str) -> list[str]:
    """List numeric columns that may be a time and are not an event; columns of delayed entry come last."""
    used = {patient, *_list_events(rows)}
    times = [
        name
        for name in rows.columns
        if name not in used and _TIME.search(name) and _numeric_share(rows.column(name)) >= _NUMERIC_SHARE
    ]
    return sorted(times, key=_is_entry_name)


def _find_entry(rows: Rows, time: str, used: set[str | None]) -> str | None:
    """Find the column of delayed entry: numbers of 0 or more, below the patient's time."""
    for name in rows.columns:
        if name in used or not _is_entry_name(name):
            continue
        cells = [pair for pair in zip(rows.column(name), rows.column(time), strict=True) if is_number(pair[1])]
        known = [(cell, end) for cell, end in cells if normalise_cell(cell) not in MISSING]
        fits = all(is_number(cell) and 0 <= float(cell) < float(end) for cell, end in known)
        if fits and any(float(cell) > 0 for cell, _ in known):
            return name
    return None


def _is_entry_name(name: str) -> bool:
    words = _split(name)
    return bool(words & _ENTRY) and words <= _ENTRY | _BESIDE_ENTRY


def _split(name: str) -> set[str]:
    """Split the name of a column into words, in lower case."""
    return {*re.findall("[a-z0-9]+", _CAMEL.sub("_", name).casefold())}


def _infer_unit(column: str) -> str:
    return next((unit for word, unit in _UNITS.items() if word in column.casefold()), "days")


def _infer_codes(column: str, cells: Iterable[str], named: NamedColumns) -> dict[str, list[Any]]:
    chosen = {normalise_cell(code) for code in (*named.seen, *named.censored)}
    codes = sorted({normalise_cell(cell) for cell in cells} - ({*MISSING} - chosen))
    unknown = sorted(chosen - {*codes})
    if unknown:
        raise DataError(describe_unknown("code", unknown[0], codes))
    if len(codes) < 2:
        raise DataError(
            f"The column {column!r} has {len(codes)} code(s), {', '.join(codes) or 'none'}; expected at least two, one "
            "for the event and one for censoring. Name another column: --event COLUMN."
        )
    seen, censored = _split_codes(column, codes, named)
    if not seen or not censored:
        raise DataError(
            f"It is unclear which of the codes {', '.join(map(repr, codes))} of the column {column!r} stand for the "
            "event and which for censoring. Name them: --seen CODE --censored CODE, or another column: --event COLUMN."
        )
    competing = [code for code in codes if code not in (*seen, *censored)]
    groups = {"seen": seen, "censored": censored, "competing": competing}
    return {key: [int(code) if code.isdecimal() else code for code in value] for key, value in groups.items() if value}


def _split_codes(column: str, codes: Sequence[str], named: NamedColumns) -> tuple[list[str], list[str]]:
    """Separate the codes of the event from those of censoring; empty where they are ambiguous."""
    seen, censored = [*map(normalise_cell, named.seen)], [*map(normalise_cell, named.censored)]
    if not seen and not censored and _INVERTED.search(column):
        return [], []
    if not seen and not censored and codes == ["1", "2"]:
        return ["2"], ["1"]  # the codes of R's survival package: 1 censored, 2 dead
    seen = seen or [code for code in codes if code in _SEEN and code not in censored]
    censored = censored or [code for code in codes if code in _CENSORED and code not in seen]
    rest = [code for code in codes if code not in (*seen, *censored)]
    if len(rest) == 1 and bool(seen) != bool(censored):  # the only other code is the other kind
        return seen or rest, censored or rest
    return seen, censored


def _infer_pattern(patients: Sequence[str], cases: Sequence[str]) -> str | None:
    """Infer the pattern of the patient ID in a case identifier; None if they are equal or nothing is found."""
    if not cases or set(patients) & set(cases):
        return None
    starts = [(patient, case) for case in cases for patient in patients if case.startswith(patient)]
    tails = {case[len(max((p for p, c in starts if c == case), key=len)) :] for _, case in starts}
    separators = {tail[0] for tail in tails if tail}
    if len(starts) and len(separators) == 1:
        separator = separators.pop()
        if not any(separator in patient for patient in patients):
            return f"^([^{re.escape(separator)}]+)"
        return f"^(.+?){re.escape(separator)}[^{re.escape(separator)}]*$"
    return None if starts else _infer_prefix(patients, cases)


def _infer_prefix(patients: Sequence[str], cases: Sequence[str]) -> str | None:
    """Infer the prefixes of the patient ID, such as the source's name in a composed dataset."""
    pairs = [(case, max((name for name in patients if case.endswith(name)), key=len, default="")) for case in cases]
    prefixes = sorted(
        {case.removesuffix(patient) for case, patient in pairs if patient}, key=lambda prefix: (-len(prefix), prefix)
    )
    if 0 < len(prefixes) <= _MOST_PREFIXES and all(prefix and not prefix[-1].isalnum() for prefix in prefixes):
        return f"^(?:{'|'.join(map(re.escape, prefixes))})(.+)$"
    return None


def _sort_columns(rows: Rows, used: set[str | None]) -> dict[str, Any]:
    covariates: dict[str, Mapping[str, Any]] = {}
    ignored: dict[str, str] = {}
    for name in rows.columns:
        if name in used:
            continue
        cells = [cell for cell in rows.column(name) if normalise_cell(cell)]
        reason = _find_reason_to_ignore(name, cells)
        if reason:
            ignored[name] = reason
        else:
            covariates[name] = _infer_type(cells)
    return {"covariates": covariates, **({"ignored": ignored} if ignored else {})}


def _find_reason_to_ignore(name: str, cells: Sequence[str]) -> str:
    known = [cell for cell in cells if normalise_cell(cell) not in MISSING]
    categories = {normalise_cell(cell) for cell in known}
    if not known:
        return "missing in all patients"
    if len(categories) == 1 and not _is_one_word_or_none(cells):
        markers = sorted({cell for cell in cells if normalise_cell(cell) in MISSING})
        missing = f" (read as missing: {', '.join(map(repr, markers))})" if markers else ""
        return f"constant{missing}"
    if POST_TREATMENT.search(name):
        return "the name suggests that it is known only after treatment began"
    if is_identifier_name(name):
        return "the name is that of an identifier"
    share = _numeric_share(cells)
    if share < _NUMERIC_SHARE and len(categories) == len(known) >= _LEAST_PATIENTS:
        return "a unique value in each patient"
    if share == 1 and are_identifiers([*map(float, known)]):
        return "a unique integer in each patient, like an identifier"
    return ""


def _is_one_word_or_none(cells: Sequence[str]) -> bool:
    """Whether the values are one word and "none", as of a treatment that some patients had."""
    words = {normalise_cell(cell) for cell in cells} - ({*MISSING} - {_NONE})
    return len(words) == 2 and _NONE in words and not any(map(is_number, words))


def _infer_type(cells: Sequence[str]) -> dict[str, Any]:
    categories = {normalise_cell(cell) for cell in cells} - {*MISSING}
    spellings = {normalise_cell(cell): cell for cell in cells}
    if _is_one_word_or_none(cells) and len(categories) == 1:
        return {"type": "ordinal", "order": [spellings[value] for value in (_NONE, *categories)]}
    candidates = (categories | {_NONE} if _NONE in spellings else categories, categories)
    order = next((order for values in candidates for order in _ORDERS if values <= set(order)), None)
    if order is not None:
        return {"type": "ordinal", "order": [spellings[value] for value in order if value in spellings]}
    # Two different numbers are a code, such as 1 and 2 for sex.
    numeric = _numeric_share(cells) == 1 and len(categories) > 2
    return {"type": "numeric" if numeric else "categorical"}


def _numeric_share(cells: Iterable[str]) -> float:
    known = [cell for cell in cells if normalise_cell(cell) not in MISSING]
    return sum(is_number(cell) for cell in known) / len(known) if known else 0.0
