"""Checks whether a clinical table can be used to train a prognosis.

Errors make training impossible or wrong. Warnings make its result doubtful, such as a column that was measured after
treatment began and leaks the outcome.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import spearmanr

from duplus_nnunet.survival.records.column_names import is_known_later
from duplus_nnunet.survival.records.follow_up_ends import check_ends
from duplus_nnunet.survival.records.imputation import count_parameters
from duplus_nnunet.survival.records.leaks import explain_leak
from duplus_nnunet.survival.records.plausible_values import check_values
from duplus_nnunet.survival.records.schema import MISSING, ClinicalSchema, normalise_cell
from duplus_nnunet.survival.records.table import (
    CENSORED,
    COMPETING,
    LATE_ENTRY,
    SEEN,
    Finding,
    Record,
    Rows,
    is_missing,
    join_names,
    number_rows,
    read_records,
)

# Rank correlation with the time above which a column measures follow-up rather than risk.
_FOLLOW_UP_CORRELATION = 0.95
# Difference in missing rates between patients with and without the event that is unlikely to be chance.
_MISSING_RATE_GAP = 0.5
_LEAST_EVENTS = 10
# Events for each encoded parameter below which a Cox model is unstable. Source: Peduzzi et al. 1995.
_EVENTS_PER_PARAMETER = 10
_LEAST_PATIENTS = 8
_FEW_CATEGORIES = 8
# Missing-value markers that can also be values: "none" of a treatment, for example.
_AMBIGUOUS_MARKERS = ("none", "unknown")
# Share of the errors of always predicting the majority outcome that a leaking column corrects.
_LEAK_SHARE = 0.95
_PATIENTS_PER_VALUE = 4
_IDENTIFIER_NAME = re.compile(
    r"(^|[^a-z])(id|pid|uid|mrn|ssn|accession)([^a-z]|$)|identifier|(row|record)[_ .-]?num|^index$|^unnamed",
    re.IGNORECASE,
)
_CAMEL_CASE_IDENTIFIER = re.compile(r"(?<=[a-z])(ID|MRN)$")
# In place of a patient ID, in rows that sum up others.
_SUMMARIES = frozenset(
    ("mean", "average", "median", "total", "sum", "sd", "std", "min", "max", "mittelwert", "summe", "gesamt", "moyenne")
)
# Different numbers of a patient that another one hardly has by chance, besides the time.
_LEAST_EQUAL = 3
# Ages and cell counts have fewer digits.
_IDENTIFIER_DIGITS = 5


@dataclass(frozen=True)
class TableReport:
    """The result of checking a table.

    Attributes:
        findings: Errors first, then warnings, then notes.
        records: One record per patient that could be read.
        centres: Number of patients and of events by centre; "" stands for an unknown centre.
        missing: Share of missing cells by covariate, 0 to 1.
    """

    findings: tuple[Finding, ...]
    records: tuple[Record, ...]
    centres: dict[str, tuple[int, int]]
    missing: dict[str, float]

    @property
    def is_usable(self) -> bool:
        """Whether there is no error."""
        return all(finding.severity != "error" for finding in self.findings)

    @property
    def events(self) -> int:
        """Number of patients with the event."""
        return sum(record.event == SEEN for record in self.records)


def check(rows: Rows, schema: ClinicalSchema, cases: Sequence[str]) -> TableReport:
    """Check a table.

    Args:
        rows: Cells of the table.
        schema: Meaning of its columns.
        cases: Identifiers of all cases that have an image.

    Raises:
        DataError: The schema names a column that the table does not have.
    """
    rows = number_rows(rows, schema.patient)
    records, findings = read_records(rows, schema)
    findings += [Finding("note", note) for note in rows.notes]
    findings += [Finding("warning", warning) for warning in rows.warnings]
    findings += [*_find_repeated(records), *_find_copies(records), *_find_summaries(records)]
    records = list({record.patient: record for record in reversed(records)}.values())[::-1]
    listed = {cell for cell in rows.column(schema.patient) if not is_missing(cell, schema)}
    findings += _compare_cases(records, schema, cases, listed)
    findings += _check_use(rows, schema)
    findings += _check_events(records)
    missing = _measure_missing(rows, schema)
    if records:
        findings += _check_covariates(rows, schema, records, missing)
        findings += _check_sizes(records, schema)
        findings += check_values(schema, records)
        findings += check_ends(rows, schema, records)
    else:
        text = f"None of the {len(rows.rows)} rows can be read; see the reason for each row."
        findings.append(Finding("error", f"{text} Correct the schema if the reasons are alike, else the rows."))
    order = ("error", "warning", "note")
    findings.sort(key=lambda finding: order.index(finding.severity))
    return TableReport(tuple(findings), tuple(records), _count_centres(records), missing)


def _find_repeated(records: Sequence[Record]) -> Iterable[Finding]:
    counts = Counter(record.patient for record in records)
    for patient, count in counts.items():
        if count > 1:
            where = ", ".join(str(record.row) for record in records if record.patient == patient)
            text = f"Patient {patient!r} has {count} rows ({where}); expected one. Keep the correct row."
            yield Finding("error", text)


def _find_copies(records: Sequence[Record]) -> Iterable[Finding]:
    """Find patients who have the same outcome and the same values as another one, of several numbers."""
    groups: dict[Hashable, list[str]] = {}
    for record in records:
        numbers = [value for value in record.values.values() if isinstance(value, float)]
        if len({*numbers}) >= _LEAST_EQUAL:
            key = record.time, record.event, *record.values.values()
            groups.setdefault(key, []).append(record.patient)
    copies = [" = ".join(dict.fromkeys(names)) for names in groups.values() if len({*names}) > 1]
    if copies:
        text = f"{len(copies)} patient(s) are in the table under several IDs, with the same outcome and values"
        yield Finding("warning", f"{text}: {join_names(copies)}. In cross-validation, copies are too easy to predict.")


def _find_summaries(records: Sequence[Record]) -> Iterable[Finding]:
    """Find rows below a table that sum it up."""
    for record in records:
        if record.patient.strip().casefold() in _SUMMARIES:
            text = f"Row {record.row} has the patient {record.patient!r}: it sums up others. Remove the row."
            yield Finding("error", text)


def _compare_cases(
    records: Sequence[Record], schema: ClinicalSchema, cases: Sequence[str], listed: set[str]
) -> Iterable[Finding]:
    patients = {case: schema.find_patient(case) for case in cases}
    unmatched = [case for case, patient in patients.items() if patient is None]
    if unmatched:
        text = f"The pattern `cases: {schema.cases}` does not match {join_names(unmatched)}. Correct it."
        yield Finding("error", text)
    imaged = {patient for patient in patients.values() if patient is not None}
    without_row, without_image = sorted(imaged - listed), sorted(listed - imaged)
    if cases and not imaged & listed:
        yield Finding(
            "error",
            f"No patient of the table has an image. Patients of the table: {join_names(sorted(listed)) or 'none'}; "
            f"patients of the images: {join_names(sorted(imaged))}. Set `cases` to a pattern that extracts the patient "
            "ID from a case identifier.",
        )
    elif without_row:
        text = f"{len(without_row)} of {len(imaged)} imaged patients have no row: {join_names(without_row)}."
        yield Finding("warning", f"{text} They are excluded from training.")
    if imaged & listed and without_image:
        text = f"{len(without_image)} of {len(listed)} patients have no image: {join_names(without_image)}."
        yield Finding("warning", f"{text} Only their clinical record is used.")


def _check_use(rows: Rows, schema: ClinicalSchema) -> Iterable[Finding]:
    """Note unused columns, the entry column, and cells that look missing but are read as values."""
    named = {*schema.list_columns()}
    unused = [name for name in rows.columns if name not in named]
    if unused:
        yield Finding(
            "note",
            f"The schema does not name the column(s) {join_names([*map(repr, unused)])}: they are not used. Add them "
            "to `covariates`, or to `ignored` with the reason.",
        )
    if schema.entry is not None:
        yield Finding("note", f"{schema.entry!r} is read as the time of delayed entry. {LATE_ENTRY}")
    if "missing" not in schema.model_fields_set:
        return
    dropped_markers = {*MISSING} - {normalise_cell(marker) for marker in schema.missing}
    for name, form in schema.covariates.items():
        values = {*map(normalise_cell, form.order)}
        cells = [cell for cell in rows.column(name) if normalise_cell(cell) in dropped_markers - values]
        kept = Counter(cell for cell in cells if not is_missing(cell, schema, form))
        if kept:
            yield Finding(
                "note",
                f"{name!r}: {_list_counts(kept)} is read as a value, because `missing` of the schema replaces the "
                "default markers. Add it there if it stands for a missing value.",
            )


def _check_events(records: Sequence[Record]) -> Iterable[Finding]:
    kinds = Counter(record.event for record in records)
    if records and not kinds[SEEN]:
        text = (
            f"None of the {len(records)} patients has the event; a model cannot be fitted. Check the codes of `event`."
        )
        yield Finding("error", text)
    if records and not kinds[CENSORED]:
        text = f"None of the {len(records)} patients is censored. Check the codes of `event`."
        yield Finding("warning", text)
    competing = {kind: count for kind, count in kinds.items() if kind not in (SEEN, CENSORED)}
    if competing:
        listed = ", ".join(f"{count} with code {kind}" for kind, count in sorted(competing.items()))
        yield Finding(
            "warning",
            f"Competing events: {listed}. {COMPETING}",
        )


def _measure_missing(rows: Rows, schema: ClinicalSchema) -> dict[str, float]:
    return {
        name: sum(is_missing(cell, schema, form) for cell in rows.column(name)) / len(rows.rows)
        for name, form in schema.covariates.items()
    }


def _check_covariates(
    rows: Rows, schema: ClinicalSchema, records: Sequence[Record], missing: dict[str, float]
) -> Iterable[Finding]:
    for name, form in schema.covariates.items():
        known = [value for record in records if (value := record.values[name]) is not None]
        markers = Counter(cell for cell in rows.column(name) if cell and is_missing(cell, schema, form))
        read_as_missing = f" Read as missing: {_list_counts(markers)}." if markers else ""
        if missing[name] == 1 or len(set(known)) < 2:
            value = f"constant ({known[0]!r})" if known else "missing in all patients"
            text = f"{name!r} is {value}, and carries no information. Move it to `ignored`."
            yield Finding("warning", text + read_as_missing + _suggest_markers(markers, schema, tuple(MISSING)))
            continue
        yield from _find_identifiers(name, form.type, known)
        yield from _find_outcome_leaks(name, form.type, records, rows.columns)
        if missing[name] > 0:
            few = form.type != "numeric" and len(set(known)) <= _FEW_CATEGORIES
            advice = _suggest_markers(markers, schema, _AMBIGUOUS_MARKERS) if few else ""
            text = f"{name!r} is missing in {missing[name]:.0%} of {len(rows.rows)} rows."
            yield Finding("note", text + read_as_missing + advice)


def _list_counts(cells: Counter[str]) -> str:
    return ", ".join(f"{cell!r} ({count} rows)" for cell, count in sorted(cells.items()))


def _suggest_markers(markers: Counter[str], schema: ClinicalSchema, ambiguous: Sequence[str]) -> str:
    """Explain how to keep a value that is read as missing only because the schema uses the default markers."""
    doubtful = [] if "missing" in schema.model_fields_set else sorted({*map(normalise_cell, markers)} & {*ambiguous})
    if not doubtful:
        return ""
    others = ", ".join(repr(marker) for marker in MISSING if marker and marker not in doubtful)
    listed = " or ".join(map(repr, doubtful))
    return f" If {listed} is a value, list the other missing-value markers in the schema: `missing: [{others}]`."


def is_identifier_name(name: str) -> bool:
    """Whether the name of a column is that of an identifier."""
    return bool(_IDENTIFIER_NAME.search(name) or _CAMEL_CASE_IDENTIFIER.search(name))


def are_identifiers(numbers: Collection[float]) -> bool:
    """Whether numbers look like identifiers: unique integers, either consecutive or of equal length.

    Args:
        numbers: Known values, one per patient. Fewer than 8 are never identifiers; equal length means the same number
            of digits, 5 or more.
    """
    unique = len(numbers) >= _LEAST_PATIENTS and len(set(numbers)) == len(numbers)
    if not unique or not all(float(number).is_integer() for number in numbers):
        return False
    low, high = int(min(numbers)), int(max(numbers))
    return high - low + 1 == len(numbers) or (low > 0 and _IDENTIFIER_DIGITS <= len(str(low)) == len(str(high)))


def _find_identifiers(name: str, kind: str, known: Sequence[float | str]) -> Iterable[Finding]:
    """Warn of columns that identify patients."""
    if kind == "categorical" and len(known) >= _LEAST_PATIENTS and len(set(known)) > 0.8 * len(known):
        yield Finding(
            "warning",
            f"{name!r} has {len(set(known))} different values in {len(known)} patients: it identifies patients rather "
            "than describes them. Move it to `ignored`, or group its values.",
        )
    if kind != "numeric":
        return
    if is_identifier_name(name):
        yield Finding(
            "warning",
            f"{name!r} has the name of an identifier. If it is one, move it to `ignored`; if it is a group code, "
            "declare it categorical.",
        )
    elif are_identifiers([*map(float, known)]):
        yield Finding(
            "warning",
            f"{name!r} is a unique integer in each patient, like an identifier. If it is one, move it to `ignored`.",
        )


def _find_outcome_leaks(name: str, kind: str, records: Sequence[Record], names: Sequence[str]) -> Iterable[Finding]:
    """Warn of columns that leak the outcome, by their name and by their association with it."""
    if is_known_later(name, names):
        yield Finding(
            "warning",
            f"The name {name!r} suggests that it is known only after treatment began. If so, move it to `ignored`: it "
            "leaks the outcome.",
        )
    reason = explain_leak(name, kind, records)
    if not reason and _determines_event(name, records):
        reason = "determines in nearly all patients who has the event"
    if reason:
        text = f"{name!r}: {reason}. It encodes the outcome, or was measured after it. Move it to `ignored`."
        yield Finding("warning", text)
    groups = [[record for record in records if (record.event == SEEN) == event] for event in (True, False)]
    if all(len(group) >= _LEAST_PATIENTS for group in groups):
        rates = [sum(record.values[name] is None for record in group) / len(group) for group in groups]
        if abs(rates[0] - rates[1]) > _MISSING_RATE_GAP:
            yield Finding(
                "warning",
                f"{name!r} is missing in {rates[0]:.0%} of patients with the event and in {rates[1]:.0%} of the "
                "others: whether it was measured depends on the outcome. If it was measured later, move it to "
                "`ignored`.",
            )
    pairs = [(record.values[name], record.time) for record in records if record.values[name] is not None]
    if kind == "numeric" and len(pairs) >= _LEAST_PATIENTS:
        correlation = float(spearmanr([pair[0] for pair in pairs], [pair[1] for pair in pairs]).statistic)
        if not math.isnan(correlation) and abs(correlation) > _FOLLOW_UP_CORRELATION:
            yield Finding(
                "warning",
                f"{name!r} is nearly a function of the time (rank correlation {correlation:.2f}): it measures "
                "follow-up, not risk. Move it to `ignored`.",
            )


def _determines_event(name: str, records: Sequence[Record]) -> bool:
    """Whether few values, each in several patients, separate those with the event from the others."""
    counts: dict[object, Counter[bool]] = {}
    for record in records:
        if record.values[name] is not None:
            counts.setdefault(record.values[name], Counter())[record.event == SEEN] += 1
    known = sum(count.total() for count in counts.values())
    events = sum(count[True] for count in counts.values())
    if known < _LEAST_EVENTS or not 0 < events < known or len(counts) > known / _PATIENTS_PER_VALUE:
        return False
    correct = sum(max(count.values()) for count in counts.values())
    majority, minority = max(events, known - events), min(events, known - events)
    return correct - majority >= _LEAK_SHARE * minority


def _check_sizes(records: Sequence[Record], schema: ClinicalSchema) -> Iterable[Finding]:
    events = sum(record.event == SEEN for record in records)
    if 0 < events < _LEAST_EVENTS:
        text = f"{events} events in {len(records)} patients: confidence intervals of all scores will be very wide."
        yield Finding("warning", text)
    parameters = count_parameters(records, schema) if events else 0
    if 0 < events < _EVENTS_PER_PARAMETER * parameters:
        yield Finding(
            "note",
            f"{events} events for {parameters} encoded parameters of {len(schema.covariates)} covariates, "
            f"{events / parameters:.3g} each; unpenalised models need {_EVENTS_PER_PARAMETER}. Keep established risk "
            "factors only, chosen without this table.",
        )


def _count_centres(records: Sequence[Record]) -> dict[str, tuple[int, int]]:
    patients, events = (
        Counter(record.centre for record in records),
        Counter(record.centre for record in records if record.event == SEEN),
    )
    return {centre: (patients[centre], events[centre]) for centre in sorted(patients)}
