"""A first clinical.yaml: in come a table and the cases of a dataset, out comes a schema for its user to correct.

Names and values are guessed from, never the outcome: no covariate is taken or left for how well it predicts.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.survival.records.checking import LATER
from duplus_nnunet.survival.records.identifiers import are_identifiers, is_identifier_name
from duplus_nnunet.survival.records.schema import MISSING, ClinicalSchema, plain
from duplus_nnunet.survival.records.table import Rows

_PATIENT = re.compile(r"patient|subject|(^|_)(id|pid|case|mrn)(_|$)", re.IGNORECASE)
_CENTRE = re.compile(r"cent(re|er)|hospital|institut|clinic(_|$)", re.IGNORECASE)
_TIME = re.compile(
    r"(^|_)time|duration|surviv|follow.?up|(^|_)(days|weeks|months|years)|(^|_)[or dpefs]+s_?(t|time)$", re.I
)
_EVENT = re.compile(
    r"event|status|outcome|relaps|recur|progress|death|dead|(?<![a-z])died|deceased|vital", re.IGNORECASE
)
_EVENT_WORDS = ("event", "relaps|recur|progress|death|dead|died|deceased")  # these before a mere status
_UNITS = {"day": "days", "week": "weeks", "month": "months", "year": "years"}
_SEEN = (
    *("1", "true", "yes", "event", "dead", "died", "death", "deceased", "relapse", "relapsed"),
    *("recurrence", "recurred", "progression", "progressed", "1:deceased", "1:progression", "1:recurred/progressed"),
)  # fmt: skip
_CENSORED = ("0", "false", "no", "censored", "alive", "living", "0:living", "0:censored", "0:diseasefree")
_CAMEL = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_TURNED = re.compile(r"alive|survived|censor", re.IGNORECASE)  # there, 1 and yes may mean that there was no event
# Words of names that do not say of which event a time is.
_COMMON = frozenset(
    (
        *("time", "times", "event", "events", "status", "state", "code", "survival", "outcome", "t", "to", "of", "in"),
        *("day", "days", "week", "weeks", "month", "months", "year", "years"),
        *("duration", "follow", "followup", "up"),
    )
)
# A name of an entry has one of these, and none that says what else was measured then, as age at entry does.
_ENTRY = frozenset(("entry", "entered", "enter", "start", "tstart", "truncation", "truncated"))
_BESIDE_ENTRY = _COMMON | {"at", "delayed", "late", "left", "study"}
_NONE = "none"  # means missing, and is a value too: of a treatment, say
_ORDERS = (
    ("low", "intermediate", "high"), ("low", "medium", "high"), ("low", "moderate", "high"),
    ("mild", "moderate", "severe"), (_NONE, "mild", "moderate", "severe"),
    ("i", "ii", "iii", "iv"), ("g1", "g2", "g3", "g4"), ("t0", "t1", "t2", "t3", "t4"), ("n0", "n1", "n2", "n3"),
)  # fmt: skip
_NUMERIC_SHARE = 0.9
_LEAST_FOR_IDENTITY, _MOST_PREFIXES = 8, 12
_HEADER = """\
# What the columns of {table} mean. A draft: correct it, then run `duplus survival check`.
# Times: of the event, or of the end of follow-up. event: codes of the event that is to be predicted, of those who were
# followed without it, and of other events that make it impossible (competing). Types of covariates: numeric,
# categorical, ordinal (with its order, lowest first). Ignored columns are not used; say why.
"""
_LATE = "# entry: patients count from then on, as who had the event before could not be seen. Is it such a time?\n"
_OTHERS = "# Other columns that look like a time or an event: {columns}. Are the right two taken?\n"


@dataclass(frozen=True)
class NamedColumns:
    """Columns that a user named instead of leaving them to be guessed; None: guess.

    Attributes:
        patient: Who it is.
        time: Time to the event or the end of follow-up.
        event: What happened then.
        centre: Hospital.
        seen: Codes of the event; empty: guess.
        censored: Codes of those who were followed without it; empty: guess.
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
        rows: The table.
        cases: Identifiers of cases that have an image.
        named: What needs no guess.

    Returns:
        The text of a clinical.yaml, with comments.

    Raises:
        DataError: Patient, time, event or its codes cannot be told, or what was named is not there or not a schema.
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
    taken = {patient, event, time}
    if len(taken) < 3 or named.centre in taken:
        raise DataError("Patient, time, event and centre are four columns; one was named twice. Name each once.")
    centre = named.centre or next((name for name in rows.columns if name not in taken and _CENTRE.search(name)), None)
    entry = _find_entry(rows, time, {patient, event, time, centre})
    content: dict[str, Any] = {
        "patient": patient,
        "centre": centre,
        "entry": entry,
        "time": {"column": time, "unit": _guess_unit(time)},
        "event": {"column": event, **_guess_codes(event, rows.column(event), named)},
        "cases": _guess_pattern(rows.column(patient), cases),
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
        found = "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())
        raise DataError(f"This makes no schema: {found}. Name other columns or codes.") from error


def _require(what: str, names: Sequence[str], rows: Rows) -> Sequence[str]:
    if not names:
        raise DataError(
            f"None of the columns {', '.join(rows.columns)} looks like the {what}. Name it: --{what} COLUMN."
        )
    return names


def _pair(events: Sequence[str], times: Sequence[str]) -> tuple[str, str]:
    """Choose the event and the time whose names have most words in common, as os_status and os_time do."""
    words = {name: _split(name) - _COMMON for name in (*events, *times)}
    pairs = [(event, time) for event in events for time in times if event != time]
    return max(pairs, key=lambda pair: len(words[pair[0]] & words[pair[1]]), default=(events[0], times[0]))


def _rank_patients(rows: Rows, cases: Sequence[str]) -> list[str]:
    """List columns whose cells differ from row to row, those first whose cells stand in case identifiers."""
    apart = [name for name in rows.columns if len(set(rows.column(name))) == len(rows.rows)]
    likely = [name for name in apart if _PATIENT.search(name)]
    return sorted(likely, key=lambda name: -sum(any(cell in case for case in cases) for cell in rows.column(name)))


def _list_events(rows: Rows) -> list[str]:
    known = {*_SEEN, *_CENSORED}
    found = [
        name for name in rows.columns if _EVENT.search(name) and {*map(plain, rows.column(name))} - {*MISSING} <= known
    ]
    return sorted(found, key=lambda name: [re.search(words, name, re.IGNORECASE) is None for words in _EVENT_WORDS])


def _list_times(rows: Rows, patient: str) -> list[str]:
    """List columns that may be a time: numbers, and not the codes of an event; those of an entry last."""
    taken = {patient, *_list_events(rows)}
    found = [
        name
        for name in rows.columns
        if name not in taken and _TIME.search(name) and _share_of_numbers(rows.column(name)) >= _NUMERIC_SHARE
    ]
    return sorted(found, key=_sounds_like_entry)


def _find_entry(rows: Rows, time: str, taken: set[str | None]) -> str | None:
    """Find when patients came under observation: numbers, 0 or above and below the patient's own time."""
    for name in rows.columns:
        if name in taken or not _sounds_like_entry(name):
            continue
        cells = [pair for pair in zip(rows.column(name), rows.column(time), strict=True) if _is_number(pair[1])]
        known = [(cell, end) for cell, end in cells if plain(cell) not in MISSING]
        fits = all(_is_number(cell) and 0 <= float(cell) < float(end) for cell, end in known)
        if fits and any(float(cell) > 0 for cell, _ in known):
            return name
    return None


def _sounds_like_entry(name: str) -> bool:
    words = _split(name)
    return bool(words & _ENTRY) and words <= _ENTRY | _BESIDE_ENTRY


def _split(name: str) -> set[str]:
    """Split the name of a column into its words, in lower case."""
    return {*re.findall("[a-z0-9]+", _CAMEL.sub("_", name).casefold())}


def _guess_unit(column: str) -> str:
    return next((unit for word, unit in _UNITS.items() if word in column.casefold()), "days")


def _guess_codes(column: str, cells: Iterable[str], named: NamedColumns) -> dict[str, list[Any]]:
    told = {plain(code) for code in (*named.seen, *named.censored)}
    codes = sorted({plain(cell) for cell in cells} - ({*MISSING} - told))
    strange = sorted(told - {*codes})
    if strange:
        raise DataError(describe_unknown("code", strange[0], codes))
    if len(codes) < 2:
        raise DataError(
            f"The column {column!r} holds {len(codes)} code(s), {', '.join(codes) or 'none'}; expected one for "
            "those with the event and one for the others. Name another column: --event COLUMN."
        )
    seen, censored = _part_codes(column, codes, named)
    if not seen or not censored:
        raise DataError(
            f"The codes {', '.join(map(repr, codes))} of the column {column!r} do not tell who had the event and who "
            "was followed without it. Name them: --seen CODE --censored CODE, or another column: --event COLUMN."
        )
    competing = [code for code in codes if code not in (*seen, *censored)]
    found = {"seen": seen, "censored": censored, "competing": competing}
    return {key: [int(code) if code.isdecimal() else code for code in value] for key, value in found.items() if value}


def _part_codes(column: str, codes: Sequence[str], named: NamedColumns) -> tuple[list[str], list[str]]:
    """Tell codes of the event and of follow-up without it; empty where they do not tell by themselves."""
    seen, censored = [*map(plain, named.seen)], [*map(plain, named.censored)]
    if not seen and not censored and _TURNED.search(column):
        return [], []
    if not seen and not censored and codes == ["1", "2"]:
        return ["2"], ["1"]  # censored and dead in R's survival, and in most tables that come from it
    seen = seen or [code for code in codes if code in _SEEN and code not in censored]
    censored = censored or [code for code in codes if code in _CENSORED and code not in seen]
    rest = [code for code in codes if code not in (*seen, *censored)]
    if len(rest) == 1 and bool(seen) != bool(censored):  # of two kinds one is known, and so the other
        return seen or rest, censored or rest
    return seen, censored


def _guess_pattern(patients: Sequence[str], cases: Sequence[str]) -> str | None:
    """Find how a patient's name stands in a case identifier; None: it is one."""
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
    return None if starts else _guess_prefix(patients, cases)


def _guess_prefix(patients: Sequence[str], cases: Sequence[str]) -> str | None:
    """Find what stands before a patient's name, as the source's name does in datasets that were composed."""
    found = [(case, max((one for one in patients if case.endswith(one)), key=len, default="")) for case in cases]
    heads = sorted(
        {case.removesuffix(patient) for case, patient in found if patient}, key=lambda head: (-len(head), head)
    )
    if 0 < len(heads) <= _MOST_PREFIXES and all(head and not head[-1].isalnum() for head in heads):
        return f"^(?:{'|'.join(map(re.escape, heads))})(.+)$"
    return None


def _sort_columns(rows: Rows, used: set[str | None]) -> dict[str, Any]:
    covariates: dict[str, Mapping[str, Any]] = {}
    ignored: dict[str, str] = {}
    for name in rows.columns:
        if name in used:
            continue
        cells = [cell for cell in rows.column(name) if plain(cell)]
        why = _find_reason_to_ignore(name, cells)
        if why:
            ignored[name] = why
        else:
            covariates[name] = _guess_type(cells)
    return {"covariates": covariates, **({"ignored": ignored} if ignored else {})}


def _find_reason_to_ignore(name: str, cells: Sequence[str]) -> str:
    known = [cell for cell in cells if plain(cell) not in MISSING]
    different = {plain(cell) for cell in known}
    if not known:
        return "missing in all patients"
    if len(different) == 1 and not _is_all_or_none(cells):
        markers = sorted({cell for cell in cells if plain(cell) in MISSING})
        missing = f", or {', '.join(map(repr, markers))}, which means missing" if markers else ""
        return f"the same in all patients{missing}"
    if LATER.search(name):
        return "sounds like something known only after treatment began"
    if is_identifier_name(name):
        return "sounds like an identifier"
    share = _share_of_numbers(cells)
    if share < _NUMERIC_SHARE and len(different) == len(known) >= _LEAST_FOR_IDENTITY:
        return "another value in each patient"
    if share == 1 and are_identifiers([*map(float, known)]):
        return "another whole number in each patient, as an identifier has"
    return ""


def _is_all_or_none(cells: Sequence[str]) -> bool:
    """Whether a word and None are all that there is, as of a treatment that some had and the others not."""
    words = {plain(cell) for cell in cells} - ({*MISSING} - {_NONE})
    return len(words) == 2 and _NONE in words and not any(map(_is_number, words))


def _guess_type(cells: Sequence[str]) -> dict[str, Any]:
    different = {plain(cell) for cell in cells} - {*MISSING}
    written = {plain(cell): cell for cell in cells}
    if _is_all_or_none(cells) and len(different) == 1:
        return {"type": "ordinal", "order": [written[value] for value in (_NONE, *different)]}
    wanted = (different | {_NONE} if _NONE in written else different, different)
    order = next((order for values in wanted for order in _ORDERS if values <= set(order)), None)
    if order is not None:
        return {"type": "ordinal", "order": [written[value] for value in order if value in written]}
    # Two numbers are a code: 1 and 2 for sex, say.
    numeric = _share_of_numbers(cells) == 1 and len(different) > 2
    return {"type": "numeric" if numeric else "categorical"}


def _share_of_numbers(cells: Iterable[str]) -> float:
    known = [cell for cell in cells if plain(cell) not in MISSING]
    return sum(_is_number(cell) for cell in known) / len(known) if known else 0.0


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
