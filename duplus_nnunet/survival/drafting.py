"""A first clinical.yaml: in come a table and the cases of a dataset, out comes a schema for its user to correct.

Names and values are guessed from, never the outcome: no covariate is taken or left for how well it predicts.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from duplus_nnunet.errors import DataError, say_unknown
from duplus_nnunet.survival.checking import LATER
from duplus_nnunet.survival.schema import MISSING, ClinicalSchema, plain
from duplus_nnunet.survival.table import Rows

_PATIENT = re.compile(r"patient|subject|(^|_)(id|pid|case|mrn)(_|$)", re.IGNORECASE)
_CENTRE = re.compile(r"cent(re|er)|hospital|institut|clinic(_|$)", re.IGNORECASE)
_TIME = re.compile(
    r"(^|_)time|duration|surviv|follow.?up|(^|_)(days|weeks|months|years)|(^|_)[or dpefs]+s_?(t|time)$", re.I
)
_EVENT = re.compile(r"event|status|outcome|relaps|recur|progress|death|dead|deceased|vital", re.IGNORECASE)
_EVENT_WORDS = ("event", "relaps|recur|progress|death|dead|deceased")  # these before a mere status
_UNITS = {"day": "days", "week": "weeks", "month": "months", "year": "years"}
_SEEN, _CENSORED = (
    ("1", "true", "yes", "event", "dead", "deceased", "relapse"),
    ("0", "false", "no", "censored", "alive"),
)
_ORDERS = (
    ("low", "intermediate", "high"), ("low", "medium", "high"), ("low", "moderate", "high"),
    ("mild", "moderate", "severe"),
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


@dataclass(frozen=True)
class Named:
    """Columns that a user named instead of leaving them to be guessed; None: guess.

    Attributes:
        patient: Who it is.
        time: Time to the event or the end of follow-up.
        event: What happened then.
        centre: Hospital.
    """

    patient: str | None = None
    time: str | None = None
    event: str | None = None
    centre: str | None = None


def draft(rows: Rows, cases: Sequence[str], named: Named) -> str:
    """Draft a schema.

    Args:
        rows: The table.
        cases: Identifiers of cases that have an image.
        named: What needs no guess.

    Returns:
        The text of a clinical.yaml, with comments.

    Raises:
        DataError: Patient, time or event cannot be told, or a column that was named is not there.
    """
    for column in (named.patient, named.time, named.event, named.centre):
        if column is not None and column not in rows.columns:
            raise DataError(say_unknown("column", column, rows.columns))
    patient = named.patient or _choose("patient", _rank_patients(rows, cases), rows)
    event = named.event or _choose("event", _list_events(rows), rows)
    time = named.time or _choose("time", _list_times(rows, {patient, event}), rows)
    taken = {patient, event, time}
    if len(taken) < 3 or named.centre in taken:
        raise DataError("Patient, time, event and centre are four columns; one was named twice. Name each once.")
    others = (name for name in rows.columns if name not in taken and _CENTRE.search(name))
    centre = named.centre or next(others, None)
    content: dict[str, Any] = {
        "patient": patient,
        "centre": centre,
        "time": {"column": time, "unit": _guess_unit(time)},
        "event": {"column": event, **_guess_codes(event, rows.column(event))},
        "cases": _guess_pattern(rows.column(patient), cases),
        **_sort_columns(rows, {patient, event, time, centre}),
    }
    content = {key: value for key, value in content.items() if value is not None}
    ClinicalSchema.model_validate(content)
    return _HEADER.format(table=rows.file) + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _choose(what: str, names: Sequence[str], rows: Rows) -> str:
    if not names:
        raise DataError(
            f"None of the columns {', '.join(rows.columns)} looks like the {what}. Name it: --{what} COLUMN."
        )
    return names[0]


def _rank_patients(rows: Rows, cases: Sequence[str]) -> list[str]:
    """List columns whose cells differ from row to row, those first whose cells stand in case identifiers."""
    apart = [name for name in rows.columns if len(set(rows.column(name))) == len(rows.rows)]
    likely = [name for name in apart if _PATIENT.search(name)]
    return sorted(likely, key=lambda name: -sum(any(cell in case for case in cases) for cell in rows.column(name)))


def _list_events(rows: Rows) -> list[str]:
    known = {*_SEEN, *_CENSORED}
    found = [name for name in rows.columns if _EVENT.search(name) and {*map(plain, rows.column(name))} - {""} <= known]
    return sorted(found, key=lambda name: [re.search(words, name, re.IGNORECASE) is None for words in _EVENT_WORDS])


def _list_times(rows: Rows, taken: set[str]) -> list[str]:
    return [
        name
        for name in rows.columns
        if name not in taken and _TIME.search(name) and _share_of_numbers(rows.column(name)) >= _NUMERIC_SHARE
    ]


def _guess_unit(column: str) -> str:
    return next((unit for word, unit in _UNITS.items() if word in column.casefold()), "days")


def _guess_codes(column: str, cells: Iterable[str]) -> dict[str, list[Any]]:
    codes = sorted({plain(cell) for cell in cells if plain(cell) not in MISSING})
    if len(codes) < 2:
        raise DataError(
            f"The column {column!r} holds {len(codes)} code(s), {', '.join(codes) or 'none'}; expected one for "
            "those with the event and one for the others. Name another column: --event COLUMN."
        )
    # 1 and 2 are censored and dead in R's survival, and in most tables that come from it.
    seen = ["2"] if codes == ["1", "2"] else [code for code in codes if code in _SEEN] or codes[-1:]
    censored = (
        [code for code in codes if code in _CENSORED] or [code for code in codes if code not in seen][:1] or ["0"]
    )
    competing = [code for code in codes if code not in (*seen, *censored)]
    found = {"seen": seen, "censored": censored, "competing": competing}
    return {key: [int(code) if code.isdigit() else code for code in value] for key, value in found.items() if value}


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
        cells = [cell for cell in rows.column(name) if plain(cell) not in MISSING]
        different = {plain(cell) for cell in cells}
        if len(different) < 2:
            ignored[name] = "the same in all patients" if cells else "missing in all patients"
        elif LATER.search(name):
            ignored[name] = "sounds like something known only after treatment began"
        elif _share_of_numbers(cells) < _NUMERIC_SHARE and len(different) == len(cells) >= _LEAST_FOR_IDENTITY:
            ignored[name] = "another value in each patient"
        else:
            covariates[name] = _guess_type(cells, different)
    return {"covariates": covariates, **({"ignored": ignored} if ignored else {})}


def _guess_type(cells: Sequence[str], different: set[str]) -> dict[str, Any]:
    order = next((order for order in _ORDERS if different <= set(order)), None)
    if order is not None:
        written = {plain(cell): cell for cell in cells}
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
