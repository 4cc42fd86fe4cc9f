"""Guesses which columns of a clinical table are the patient, the event and the time, from their names and values."""

import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence

from duplus_nnunet.survival.records.checking import are_identifiers, is_identifier_name
from duplus_nnunet.survival.records.column_names import (
    find_own_times,
    has_endpoint_word,
    split_name,
    split_name_in_order,
)
from duplus_nnunet.survival.records.endpoint_pairs import COMMON
from duplus_nnunet.survival.records.event_codes import KNOWN_CODES
from duplus_nnunet.survival.records.schema import MISSING, normalise_cell
from duplus_nnunet.survival.records.table import Rows
from duplus_nnunet.table_files import is_number

_PATIENT = re.compile(r"patient|subject|(^|_)(id|pid|case|mrn)(_|$)", re.IGNORECASE)
_PATIENT_WORDS = frozenset(("patient", "patients", "patientid", "subject", "subjectid", "mrn", "pid", "pat", "patid"))
_ID_WORDS = _PATIENT_WORDS | {"id", "ids", "identifier", "no", "nr", "number", "code", "name", "key", "study", "unique"}
# Words of measurements of a patient, such as "patient_age".
_MEASUREMENTS = frozenset(("age", "weight", "height", "sex", "gender", "date", "bmi", "history", "count", "number"))
_BARE = r"os|dss|pfs|pfi|dfs|dfi|rfs|efs|mfs|dmfs|lrfs|ttp"  # survival, or the event if the values are 0 and 1
_TIME = re.compile(
    r"(^|_)time|time$|duration|surviv|follow.?up|(^|_)(days?|weeks?|months?|years?)(_|$)|(^|_)[or dpefs]+s_?(t|time)$|"
    rf"^({_BARE})$|(^|_)(futime|lenfol|fu)(_|$)|days$|months$",
    re.IGNORECASE,
)
_NOT_TIME = frozenset(
    ("age", "diagnosis", "treatment", "birth", "pack", "packs", "smoking", "smoked", "smoker", "alcohol", "symptom",
     "symptoms", "education", "exposure", "hospital", "hospitalisation", "hospitalization", "stay", "los",
     "operation", "anesthesia", "anaesthesia", "menopause")
)  # fmt: skip
_EVENT = re.compile(
    r"event|status|outcome|relaps|recur|progress|death|dead|(?<![a-z])died|deceased|vital|arrest|"
    rf"(^|_)(f?stat|r?cens|censor|delta|fail\w*|{_BARE})(_|$)",
    re.IGNORECASE,
)
_NOT_EVENT = frozenset(
    ("hpv", "p16", "performance", "ecog", "smoking", "smoker", "marital", "menopausal", "er", "pr", "her2", "receptor",
     "ebv", "mutation", "margin", "nodal")
)  # fmt: skip
# Names that say of an event no more than "status" are events if all other words are of these, or of an endpoint; in
# others, such as MSI_status, they are what has the status.
_VAGUE_EVENT = re.compile(r"(?<![a-z])(status|f?stat|outcome|delta|fail\w*)(?![a-z])")
_OF_PATIENTS = COMMON | {
    *("f", "fail", "failure", "fails", "fstat", "delta", "patient", "subject", "final", "last", "current", "clinical"),
    *("overall", "followup", "disease", "cancer", "free", "study", "at", "end", "the", "censoring", "failed"),
    "treatment",
}  # fmt: skip
_MOST_TEXTS = 12  # different texts of an event whose codes are not known
_FIRST_YEAR, _LAST_YEAR = 1900, 2100  # of a calendar
# Codes of R's survival package, censored and dead, and of questionnaires, where 1 is as often yes.
_ONE_AND_TWO = {"1", "2"}
_MOST_CODES = 5  # of an event that is coded by numbers
_EVENT_WORDS = ("event", "relaps|recur|progress|death|dead|died|deceased")  # preferred to other names, such as status
# The name of an entry column has one of these words, and no word of a measurement at entry, such as "age at entry".
_ENTRY = frozenset(("entry", "entered", "enter", "start", "tstart", "truncation", "truncated"))
_BESIDE_ENTRY = COMMON | {"at", "delayed", "late", "left", "study"}
NUMERIC_SHARE = 0.9
_CENTRE = re.compile(
    r"cent(re|er)(?![a-z])|hospitals?(?![a-z])|institut(e|es|ion|ions|o)?(?![a-z])|clinic(_|$)|(^|_)inst(_|$)",
    re.IGNORECASE,
)
_OF_A_STAY = frozenset(
    ("stay", "stays", "days", "day", "length", "los", "duration", "admission", "admissions", "visit", "visits", "prior",
     "previous", "before", "discharge", "discharged", "death", "mortality", "volume", "count", "time",
     "distance")
)  # fmt: skip
_LEAST_PATIENTS = 8


def find_otherwise(rows: Rows, time: str, used: set[str | None]) -> str | None:
    """Find the column of times that fills the empty cells of another, such as the last contact of the living."""
    empty = [number for number, cell in enumerate(rows.column(time)) if normalise_cell(cell) in MISSING]
    if len(empty) <= (1 - NUMERIC_SHARE) * len(rows.rows):
        return None
    for name in rows.columns:
        if name not in used and _TIME.search(name) and measure_numeric_share(rows.column(name)) >= NUMERIC_SHARE:
            cells = rows.column(name)
            filled = sum(normalise_cell(cells[number]) not in MISSING for number in empty)
            if filled >= NUMERIC_SHARE * len(empty):
                return name
    return None


def rank_patients(rows: Rows, cases: Sequence[str]) -> list[str]:
    """List likely patient columns of unique cells; columns whose cells occur in case identifiers come first."""
    unique = [name for name in rows.columns if len(set(rows.column(name))) == len(rows.rows)]
    likely = [name for name in unique if _is_patient_name(name) and not _are_fractions(rows.column(name))]
    likely.sort(key=lambda name: _PATIENT.search(name) is None)
    if not likely:
        others = [name for name in unique if not split_name(name) & _MEASUREMENTS]
        likely = [name for name in others if _are_names(rows.column(name)) or is_identifier_name(name)]
    return sorted(likely, key=lambda name: -sum(any(cell in case for case in cases) for cell in rows.column(name)))


def find_repeated_patients(rows: Rows, surely: bool = False) -> tuple[str, dict[str, int]] | None:
    """Find a column that is named like the patient ID, where several rows have the same.

    Args:
        rows: The table.
        surely: Whether the name must say "patient" or the like and nothing else, as beside an ID of each row.

    Returns:
        Its name, and the number of rows of each patient who has several; None if there is no such column.
    """
    for name in rows.columns:
        counts = Counter(cell for cell in rows.column(name) if normalise_cell(cell) not in MISSING)
        repeated = {cell: count for cell, count in counts.items() if count > 1}
        # Not a code of few values, such as that of the study.
        several = len(counts) ** 2 > len(rows.rows)
        named = (
            split_name(name) & _PATIENT_WORDS and split_name(name) <= _ID_WORDS if surely else _is_patient_name(name)
        )
        if repeated and several and named and not _are_fractions(rows.column(name)):
            return name, repeated
    return None


def _is_patient_name(name: str) -> bool:
    """Whether a name is that of the patient ID, and not of a measurement of the patient or of a hospital's code."""
    named = _PATIENT.search(name) or is_identifier_name(name)
    return bool(named) and not split_name(name) & _MEASUREMENTS and not _is_centre_name(name)


def _are_fractions(cells: Sequence[str]) -> bool:
    """Whether cells are measurements: some have a fraction."""
    known = [cell for cell in cells if normalise_cell(cell) not in MISSING]
    return all(map(is_number, known)) and any(not float(cell).is_integer() for cell in known)


def list_centres(rows: Rows, used: Container[str | None]) -> list[str]:
    """List columns that are named like the hospital, and not like what happened there, such as the length of a stay."""
    named = [name for name in rows.columns if name not in used and _is_centre_name(name)]
    # A "hospital number" may be that of the patient.
    return [name for name in named if 2 * len(set(rows.column(name))) <= len(rows.rows)]


def _is_centre_name(name: str) -> bool:
    words = split_name_in_order(name)
    return bool(_CENTRE.search("_".join(words))) and not {*words} & _OF_A_STAY


def _are_names(cells: Sequence[str]) -> bool:
    """Whether unique cells are names or consecutive numbers."""
    if len(cells) < _LEAST_PATIENTS:
        return False
    if measure_numeric_share(cells) == 0:
        return True
    return all(map(is_number, cells)) and are_identifiers([*map(float, cells)])


def list_events(rows: Rows) -> list[str]:
    """List columns that look like an event: those that are named so first, columns of censoring last.

    Columns whose codes are not known are listed if there are no others, so that the user is asked.
    """
    events = [name for name in rows.columns if _looks_like_event(name, rows)]
    events = events or [name for name in rows.columns if _has_unknown_codes(name, rows)]
    return sorted(
        events,
        key=lambda name: (
            [re.search(words, name, re.IGNORECASE) is None for words in _EVENT_WORDS]
            + [re.search("cens", name, re.IGNORECASE) is not None]
        ),
    )


def _looks_like_event(name: str, rows: Rows) -> bool:
    timed = any(_looks_like_time(other, rows.column(other)) for other in find_own_times(name, rows.columns))
    if not (timed or _is_event_name(name)) or split_name(name) & _NOT_EVENT:
        return False
    codes = {*map(normalise_cell, rows.column(name))} - {*MISSING}
    numbers = all(code.isdecimal() and int(code) < _MOST_CODES for code in codes) and "0" in codes
    return codes <= KNOWN_CODES or (numbers and len(codes) <= _MOST_CODES)


def _is_event_name(name: str) -> bool:
    """Whether a name is that of an event; names that say no more than "status" must not say what has the status."""
    if not _EVENT.search(name):
        return False
    rest = _VAGUE_EVENT.sub("", "_".join(split_name_in_order(name)))
    return bool(_EVENT.search(rest) or split_name(rest) <= _OF_PATIENTS or has_endpoint_word(name))


def _has_unknown_codes(name: str, rows: Rows) -> bool:
    texts = {*map(normalise_cell, rows.column(name))} - {*MISSING}
    named = re.search("vital|death|dead|died|deceased|relaps|recur|progress|status|outcome|event", name, re.IGNORECASE)
    some = (1 < len(texts) <= _MOST_TEXTS and not any(map(is_number, texts))) or texts == _ONE_AND_TWO
    return bool(named) and some and _is_event_name(name) and not split_name(name) & _NOT_EVENT


def list_times(rows: Rows, patient: str, event: str | None = None) -> list[str]:
    """List numeric columns that may be a time and are not an event; columns of delayed entry come last.

    Columns that are empty in more than a tenth of the rows come only if no other column is filled.
    """
    used = {patient, event, *list_events(rows)}
    times = [name for name in rows.columns if name not in used and _looks_like_time(name, rows.column(name))]
    filled = [
        name
        for name in times
        if sum(normalise_cell(cell) not in MISSING for cell in rows.column(name)) >= NUMERIC_SHARE * len(rows.rows)
    ]
    return sorted(filled or times, key=_is_entry_name)


def _looks_like_time(name: str, cells: Sequence[str]) -> bool:
    if not _TIME.search(name) or measure_numeric_share(cells) < NUMERIC_SHARE:
        return False
    words = split_name(name)
    numbers = [float(cell) for cell in cells if is_number(cell) and normalise_cell(cell) not in MISSING]
    calendar = bool(numbers) and min(numbers) >= _FIRST_YEAR and max(numbers) <= _LAST_YEAR and "year" in words
    return not calendar and (not words & _NOT_TIME or "surviv" in name.casefold())


def find_entry(rows: Rows, time: str, used: set[str | None]) -> str | None:
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
    words = split_name(name)
    return bool(words & _ENTRY) and words <= _ENTRY | _BESIDE_ENTRY


def measure_numeric_share(cells: Iterable[str]) -> float:
    """Return the share of the known cells that are numbers, 0 to 1; 0 if none is known."""
    known = [cell for cell in cells if normalise_cell(cell) not in MISSING]
    return sum(is_number(cell) for cell in known) / len(known) if known else 0.0
