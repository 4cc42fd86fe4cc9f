"""Drafts clinical.yaml from a clinical table, for the user to correct.

The schema is inferred from the names and values of columns. No covariate is chosen for its association with the
outcome; columns that encode the outcome are left out, with the reason.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.survival.records.checking import are_identifiers, is_identifier_name
from duplus_nnunet.survival.records.column_names import is_known_later
from duplus_nnunet.survival.records.column_roles import (
    NUMERIC_SHARE,
    find_entry,
    find_otherwise,
    list_events,
    list_times,
    measure_numeric_share,
    pair_columns,
    rank_patients,
)
from duplus_nnunet.survival.records.event_codes import infer_codes
from duplus_nnunet.survival.records.leaks import explain_leak
from duplus_nnunet.survival.records.schema import MISSING, ROW_NUMBER, ClinicalSchema, normalise_cell
from duplus_nnunet.survival.records.table import Rows, number_rows, read_records
from duplus_nnunet.survival.records.time_units import propose_unit
from duplus_nnunet.table_files import is_number

_CENTRE = re.compile(r"cent(re|er)|hospital|institut|clinic(_|$)|(^|_)inst(_|$)", re.IGNORECASE)
_NONE = "none"  # a missing-value marker that can also be a value: of a treatment, for example
_ORDERS = (
    ("low", "intermediate", "high"), ("low", "medium", "high"), ("low", "moderate", "high"),
    ("mild", "moderate", "severe"), (_NONE, "mild", "moderate", "severe"),
    ("i", "ii", "iii", "iv"), ("g1", "g2", "g3", "g4"), ("t0", "t1", "t2", "t3", "t4"), ("n0", "n1", "n2", "n3"),
)  # fmt: skip
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
        unit: Unit of the time.
    """

    patient: str | None = None
    time: str | None = None
    event: str | None = None
    centre: str | None = None
    seen: tuple[str, ...] = ()
    censored: tuple[str, ...] = ()
    unit: str | None = None


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
    patient, event, time = _choose_roles(rows, cases, named)
    rows = number_rows(rows, patient)
    used = {patient, event, time}
    if len(used) < 3 or named.centre in used:
        listed = ", ".join(map(repr, (patient, time, event, *([named.centre] if named.centre else []))))
        raise DataError(
            f"Patient, time, event and centre must be different columns; the columns are {listed}. Name each once."
        )
    found = (name for name in rows.columns if name not in used and _CENTRE.search(name))
    centre = named.centre or next(found, None)
    otherwise = None if named.time else find_otherwise(rows, time, {*used, centre})
    entry = find_entry(rows, time, {*used, centre, otherwise})
    unit, codes, reason = _ask(rows, time, event, named)
    used_columns = {patient, event, time, centre, entry, otherwise}
    content: dict[str, Any] = {
        "patient": patient,
        "centre": centre,
        "entry": entry,
        "time": {"column": time, **({"otherwise": otherwise} if otherwise else {}), "unit": unit},
        "event": {"column": event, **codes},
        "cases": _infer_pattern(rows.column(patient), cases),
        **_sort_columns(rows, used_columns),
    }
    content = {key: value for key, value in content.items() if value is not None}
    schema = _check(content)
    content |= _list_exclusions(rows, schema)
    _leave_leaks_out(content, rows, _check(content))
    others = [
        name for name in dict.fromkeys((*list_events(rows), *list_times(rows, patient))) if name not in used_columns
    ]
    hint = (_LATE if entry else "") + (_OTHERS.format(columns=", ".join(others)) if others else "")
    hint += "".join(f"# {note}\n" for note in (reason, *rows.notes))
    return _HEADER.format(table=rows.file) + hint + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _choose_roles(rows: Rows, cases: Sequence[str], named: NamedColumns) -> tuple[str, str, str]:
    """Choose the columns of the patient, the event and the time.

    Raises:
        DataError: One or more are not found; the message asks for all of them.
    """
    patients = [named.patient] if named.patient else rank_patients(rows, cases)
    if not patients and not cases:
        patients = [ROW_NUMBER]
    events = [named.event] if named.event else list_events(rows)
    times = [named.time] if named.time else list_times(rows, patients[0] if patients else "", named.event)
    absent = [role for role, names in (("patient", patients), ("event", events), ("time", times)) if not names]
    if absent:
        asked = " ".join(f"--{role} COLUMN" for role in absent)
        raise DataError(
            f"None of the columns {', '.join(rows.columns)} looks like the {' or the '.join(absent)}. Name it: {asked}."
        )
    return patients[0], *pair_columns(events, times)


def _ask(rows: Rows, time: str, event: str, named: NamedColumns) -> tuple[str, dict[str, list[Any]], str]:
    """Return the unit of the time, the codes of the event, and a sentence on the unit.

    Raises:
        DataError: The unit or the codes are in doubt; the message asks for both at once.
    """
    numbers = [float(cell) for cell in rows.column(time) if is_number(cell) and normalise_cell(cell) not in MISSING]
    unit, reason = (named.unit, "The unit is the one that was given.") if named.unit else propose_unit(time, numbers)
    questions, codes = [], {}
    try:
        codes = infer_codes(event, rows.column(event), named.seen, named.censored)
    except DataError as error:
        questions.append(str(error))
    if unit is None:
        asked = f"The unit of the column {time!r} is in doubt. {reason} Name it: --unit days|weeks|months|years."
        questions.append(asked)
    if questions or unit is None:
        raise DataError("\n".join(questions))
    return unit, codes, reason


def _list_exclusions(rows: Rows, schema: ClinicalSchema) -> dict[str, list[str]]:
    """List the rules by which rows of this table must be left out."""
    every = ("time missing", "time 0", "event missing")
    trial = schema.model_copy(update={"exclude": [*every]})
    texts = [finding.text for finding in read_records(rows, trial)[1] if finding.severity == "warning"]
    rules = [rule for rule in every if any(f"`exclude: {rule}`" in text for text in texts)]
    return {"exclude": rules} if rules else {}


def _leave_leaks_out(content: dict[str, Any], rows: Rows, schema: ClinicalSchema) -> None:
    """Move covariates whose values encode the outcome to `ignored`, with the reason."""
    records, _ = read_records(rows, schema)
    for name, form in schema.covariates.items():
        reason = explain_leak(name, form.type, records) if records else ""
        if reason:
            del content["covariates"][name]
            content.setdefault("ignored", {})[name] = f"{reason}; to use it all the same, move it to covariates"


def _check(content: Mapping[str, Any]) -> ClinicalSchema:
    try:
        return ClinicalSchema.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(details["msg"].removeprefix("Value error, ") for details in error.errors())
        raise DataError(f"No valid schema can be drafted: {problems}. Name other columns or codes.") from error


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
        reason = _find_reason_to_ignore(name, cells, rows.columns)
        if reason:
            ignored[name] = reason
        else:
            covariates[name] = _infer_type(cells)
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
    if len(categories) <= 2 or measure_numeric_share(cells) < NUMERIC_SHARE:
        return {"type": "categorical"}
    texts = sorted(spellings[value] for value in categories if not is_number(value))
    return {"type": "numeric", **({"missing": texts} if texts else {})}
