"""Drafts clinical.yaml from a clinical table, for the user to correct.

The schema is inferred from the names and values of columns. No covariate is chosen for its association with the
outcome; columns that encode the outcome are left out, with the reason.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import yaml
from pydantic import ValidationError

from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.survival.records.column_roles import (
    find_entry,
    find_otherwise,
    find_repeated_patients,
    list_centres,
    list_events,
    list_times,
    rank_patients,
)
from duplus_nnunet.survival.records.column_types import sort_columns
from duplus_nnunet.survival.records.drafted_dates import draft_dates, list_dates
from duplus_nnunet.survival.records.endpoint_pairs import pair_by_name, pair_columns
from duplus_nnunet.survival.records.endpoints import KEY, EndpointError, split_endpoints
from duplus_nnunet.survival.records.event_codes import infer_codes, is_coded_as_in_r
from duplus_nnunet.survival.records.leaks import explain_leak
from duplus_nnunet.survival.records.schema import DAYS, MISSING, ROW_NUMBER, ClinicalSchema, normalise_cell
from duplus_nnunet.survival.records.table import Rows, number_rows, read_records
from duplus_nnunet.survival.records.time_units import find_named_unit, propose_unit
from duplus_nnunet.table_files import is_number

_MOST_PREFIXES = 12
_HEADER = """\
# Meaning of the columns of {table}. This is a draft: correct it, then run `duplus survival check`.
# time: time to the event or the end of follow-up. event: codes of the event to be predicted (seen), of follow-up that
# ended without it (censored), and of other events that make it impossible (competing). covariates: numeric, categorical
# or ordinal (with its order, lowest first). ignored: columns that are not used, with the reason.
"""
_LATE = "# entry: time of delayed entry (left truncation); patients are at risk only from then on. Check the column.\n"
_SEVERAL = "# endpoints: each has a name, that of the column of its event; commands work on one: --endpoint NAME.\n"
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
        start: Column of the date of the start, if the time is given by dates.
        end: Column of the date of the event or of the end of follow-up.
        otherwise: Column of the date that is read where `end` is empty.
        format: Format of the dates.
        endpoint: Name of the endpoint; the only one to draft, if the table has several.
        tables: Further tables that were joined: column of the patient ID, by file name.
    """

    patient: str | None = None
    time: str | None = None
    event: str | None = None
    centre: str | None = None
    seen: tuple[str, ...] = ()
    censored: tuple[str, ...] = ()
    unit: str | None = None
    start: str | None = None
    end: str | None = None
    otherwise: str | None = None
    format: str | None = None
    endpoint: str | None = None
    tables: tuple[tuple[str, str], ...] = ()


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
    own = (named.patient, named.time, named.event, named.centre, named.start, named.end, named.otherwise)
    for column in own:
        if column is not None and column not in rows.columns and (column, named.patient) != (ROW_NUMBER, ROW_NUMBER):
            raise DataError(describe_unknown("column", column, rows.columns))
    patient, pairs = _choose_roles(rows, cases, named)
    rows = number_rows(rows, patient)
    used: set[str | None] = {patient, *chain(*pairs)}
    more = [name for name in (named.centre, named.start, named.otherwise) if name is not None]
    twice = len({*more}) < len(more) or not used.isdisjoint(more)
    if len(used) < 1 + len({*chain(*pairs)}) or any(event == time for event, time in pairs) or twice:
        listed = ", ".join(map(repr, (patient, *chain(*pairs), *more)))
        raise DataError(
            f"Patient, time, event and centre must be different columns; the columns are {listed}. Name each once."
        )
    used |= {named.start}
    centre = named.centre or next(iter(list_centres(rows, used)), None)
    forms, reasons = _draft_endpoints(rows, pairs, {*used, centre}, named)
    used |= {centre, *(form["time"].get("otherwise") for form in forms.values())}
    entry = find_entry(rows, pairs[0][1], used)
    if entry is not None:
        _require_unit(entry, "delayed entry", next(iter(forms.values()))["time"].get("unit", "days"))
    used |= {entry}
    others = _find_other_endpoints(rows, patient, used)
    used |= others.keys()
    content: dict[str, Any] = {
        "patient": patient,
        "tables": dict(named.tables) or None,
        "centre": centre,
        "entry": entry,
        **_arrange_endpoints(forms, named.endpoint),
        "cases": _infer_pattern(rows.column(patient), cases),
        **sort_columns(rows, used),
    }
    content = {key: value for key, value in content.items() if value is not None}
    if others:
        content["ignored"] = {**others, **content.get("ignored", {})}
    exclude = [rule for schema in _check(content).values() for rule in _list_exclusions(rows, schema)]
    content |= {"exclude": [*dict.fromkeys(exclude)]} if exclude else {}
    _leave_leaks_out(content, rows, _check(content))
    unused = [
        name
        for name in dict.fromkeys((*list_events(rows), *list_times(rows, patient)))
        if name not in used - others.keys()
    ]
    hint = (_LATE if entry else "") + (_OTHERS.format(columns=", ".join(unused)) if unused else "")
    hint += _SEVERAL if KEY in content else ""
    hint += "".join(f"# {note}\n" for note in (*reasons, *rows.notes, *rows.warnings))
    return _HEADER.format(table=rows.file) + hint + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _choose_roles(rows: Rows, cases: Sequence[str], named: NamedColumns) -> tuple[str, list[tuple[str, str]]]:
    """Choose the column of the patient, and the columns of event and time of each endpoint.

    Raises:
        DataError: One or more are not found, and the message asks for all of them; or the endpoint is unknown.
    """
    patients = [named.patient] if named.patient else rank_patients(rows, cases)
    if not named.patient:
        _refuse_repeated(rows, surely=bool(patients))
    if not patients and not cases:
        patients = [ROW_NUMBER]
    events = [named.event] if named.event else list_events(rows)
    time = named.time or named.end
    times = [time] if time else list_times(rows, patients[0] if patients else "", named.event)
    absent = [role for role, names in (("patient", patients), ("event", events), ("time", times)) if not names]
    if absent:
        asked = " ".join(f"--{role} COLUMN" for role in absent)
        dates = list_dates(rows)
        hint = (
            f" The columns {', '.join(map(repr, dates))} have dates; to use two of them: --start COLUMN --end COLUMN, "
            "and with a date of death as the end --otherwise COLUMN, the last contact of the living."
        )
        raise DataError(
            f"None of the columns {', '.join(rows.columns)} looks like the {' or the '.join(absent)}. Name it: {asked}."
            + (hint if len(dates) > 1 and not times else "")
        )
    pairs = pair_columns(events, times)
    if named.endpoint is not None and (len(pairs) > 1 or named.endpoint in rows.columns):
        by_name = dict(pairs)
        if named.endpoint not in by_name and named.endpoint in events:
            raise DataError(
                f"No time was found for the endpoint {named.endpoint!r}. Name the pair: --event {named.endpoint} "
                "--time COLUMN."
            )
        if named.endpoint not in by_name:
            raise DataError(describe_unknown("endpoint", named.endpoint, by_name))
        pairs = [(named.endpoint, by_name[named.endpoint])]
    return patients[0], pairs


def _refuse_repeated(rows: Rows, surely: bool) -> None:
    """Refuse a table in which a column that is named like the patient ID has the same one in several rows.

    Raises:
        DataError: There is such a column.
    """
    found = find_repeated_patients(rows, surely)
    if found is None:
        return
    name, repeated = found
    most = Counter(repeated).most_common(3)
    listed = ", ".join(f"{patient!r} ({count} rows)" for patient, count in most)
    more = f" and {len(repeated) - len(most)} more" if len(repeated) > len(most) else ""
    raise DataError(
        f"{rows.file}: the column {name!r} is named like the patient ID, and {len(repeated)} of its values stand in "
        f"several rows: {listed}{more}. Each patient must have one row: keep one, such as the one before treatment. If "
        f"rows are different patients, name another column: --patient COLUMN, or --patient {ROW_NUMBER!r}."
    )


def _require_unit(column: str, role: str, unit: str) -> None:
    """Require that the name of a column does not say another unit than that of the time.

    Raises:
        DataError: It does.
    """
    named = find_named_unit(column)
    if named is not None and named != unit:
        raise DataError(
            f"The name of the column {column!r}, which looks like the {role}, says {named}, but the time is in {unit}. "
            "Write both in one unit; or rename the column if it has another meaning."
        )


def _find_other_endpoints(rows: Rows, patient: str, used: set[str | None]) -> dict[str, str]:
    """Return the columns of endpoints that are not drafted, which their names pair, each with the reason."""
    candidates = list_events(rows), list_times(rows, patient)
    events, times = ([name for name in names if name not in used] for names in candidates)
    return {
        column: f"time or event of the endpoint {event!r}"
        for event, time in pair_by_name(events, times)
        for column in (event, time)
    }


def _draft_endpoints(
    rows: Rows, pairs: Sequence[tuple[str, str]], used: set[str | None], named: NamedColumns
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Draft time and event of each endpoint, by the column of the event; and a sentence on each unit.

    Raises:
        DataError: Units or codes are in doubt; the message asks for all at once.
    """
    _require_codes(rows, [event for event, _ in pairs], (*named.seen, *named.censored))
    forms: dict[str, dict[str, Any]] = {}
    reasons, doubts, questions = list[str](), list[str](), list[str]()
    for event, time in pairs:
        try:
            codes = _infer_codes(rows, event, named)
        except DataError as error:
            codes = {}
            questions.append(str(error))
        form, reason = _draft_time(rows, time, used, named, len(pairs) == 1)
        if form.get("unit", "days") is None:
            doubts.append(f"{time!r}: {reason}")
        reasons.append(reason if len(pairs) == 1 else f"{event}: {reason}")
        if is_coded_as_in_r(event, rows.column(event)) and not (named.seen or named.censored):
            reasons.append(f"{event!r} is coded 1 and 2: read as in R's survival package, 2 is the event. Check it.")
        forms[event] = {"time": form, "event": {"column": event, **codes}}
    if doubts:
        questions.append(f"The unit of the time is in doubt. {' '.join(doubts)} Name it: --unit {'|'.join(DAYS)}.")
    if questions and len(pairs) > 1:
        questions.append(f"The table has several endpoints; to draft one alone: --endpoint {'|'.join(forms)}.")
    if questions:
        raise DataError("\n".join(questions))
    return forms, reasons


def _draft_time(
    rows: Rows, time: str, used: set[str | None], named: NamedColumns, alone: bool
) -> tuple[dict[str, Any], str]:
    """Draft `time`, and a sentence on it; its unit is None where it is in doubt.

    Args:
        rows: Cells of the table.
        time: Column of the time, or of the date of its end.
        used: Columns of other roles.
        named: What the user named.
        alone: Whether it is the only time.
    """
    if named.start is not None:
        form = draft_dates(rows, named.start, time, named.otherwise, named.format)
        filled = f", or {named.otherwise!r} where that is empty" if named.otherwise else ""
        return form, f"The time is from {named.start!r} to {time!r}{filled}; dates are read as {form['format']}."
    unit, reason = _choose_unit(rows, time, named.unit, alone)
    otherwise = None if named.time else find_otherwise(rows, time, used)
    if otherwise is not None and unit is not None:
        _require_unit(otherwise, f"time of patients without {time!r}", unit)
    return {"column": time, **({"otherwise": otherwise} if otherwise else {}), "unit": unit}, reason


def _require_codes(rows: Rows, events: Sequence[str], codes: Sequence[str]) -> None:
    """Require that each named code occurs in a column of an event."""
    known = {normalise_cell(cell) for event in events for cell in rows.column(event)}
    for code in codes:
        if normalise_cell(code) not in known:
            raise DataError(describe_unknown("code", code, sorted(known - {*MISSING})))


def _infer_codes(rows: Rows, event: str, named: NamedColumns) -> dict[str, list[Any]]:
    """Infer the codes of an event; of the named ones, those count that its column has."""
    cells = rows.column(event)
    own = {*map(normalise_cell, cells)}
    seen, censored = ([code for code in codes if normalise_cell(code) in own] for codes in (named.seen, named.censored))
    return infer_codes(event, cells, seen, censored)


def _choose_unit(rows: Rows, time: str, given: str | None, alone: bool) -> tuple[str | None, str]:
    """Return the unit of a time and a sentence on it; of several times, those keep their unit whose name says it."""
    if given is not None and (alone or find_named_unit(time) is None):
        return given, "The unit is the one that was given."
    numbers = [float(cell) for cell in rows.column(time) if is_number(cell) and normalise_cell(cell) not in MISSING]
    return propose_unit(time, numbers)


def _arrange_endpoints(forms: Mapping[str, dict[str, Any]], name: str | None) -> dict[str, Any]:
    """Return time and event of the only endpoint, or `endpoints`."""
    if len(forms) > 1:
        return {KEY: dict(forms)}
    return {"endpoint": name, **next(iter(forms.values()))}


def _list_exclusions(rows: Rows, schema: ClinicalSchema) -> list[str]:
    """List the rules by which rows of this table must be left out."""
    every = ("time missing", "time 0", "event missing")
    trial = schema.model_copy(update={"exclude": [*every]})
    texts = [finding.text for finding in read_records(rows, trial)[1] if finding.severity == "warning"]
    return [rule for rule in every if any(f"`exclude: {rule}`" in text for text in texts)]


def _find_constants(rows: Rows, schemas: Mapping[str, ClinicalSchema]) -> list[str]:
    """List covariates with fewer than two values among the patients whose outcome is known, at every endpoint."""
    records = [record for schema in schemas.values() for record in read_records(rows, schema)[0]]
    names = next(iter(schemas.values())).covariates if records else ()
    return [name for name in names if len({record.values[name] for record in records} - {None}) <= 1]


def _leave_leaks_out(content: dict[str, Any], rows: Rows, schemas: Mapping[str, ClinicalSchema]) -> None:
    """Move covariates that encode the outcome of an endpoint, or are constant where it is known, to `ignored`."""
    for name in _find_constants(rows, schemas):
        del content["covariates"][name]
        content.setdefault("ignored", {})[name] = "constant in the patients whose outcome is known"
    for endpoint, schema in schemas.items():
        records, _ = read_records(rows, schema)
        for name, form in schema.covariates.items():
            reason = explain_leak(name, form.type, records) if records and name in content["covariates"] else ""
            if reason:
                del content["covariates"][name]
                where = f"endpoint {endpoint!r}: " if endpoint else ""
                text = f"{where}{reason}; to use it all the same, move it to covariates"
                content.setdefault("ignored", {})[name] = text


def _check(content: Mapping[str, Any]) -> dict[str, ClinicalSchema]:
    """Validate a draft; returns the schema of each endpoint."""
    try:
        contents = split_endpoints(content) if KEY in content else {"": content}
        return {name: ClinicalSchema.model_validate(single) for name, single in contents.items()}
    except EndpointError as error:
        raise DataError(f"No valid schema can be drafted: {error}. Name other columns or codes.") from error
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
