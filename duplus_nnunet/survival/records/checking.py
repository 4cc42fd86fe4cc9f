"""Is a clinical table fit to learn prognosis from? In come table, schema and cases, out come findings and counts.

Errors are what makes a training wrong or impossible; warnings are what makes its result doubtful, such as a column that
was measured after treatment began, and so knows the answer.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import spearmanr

from duplus_nnunet.survival.records.identifiers import are_identifiers, is_identifier_name
from duplus_nnunet.survival.records.schema import MISSING, ClinicalSchema, plain
from duplus_nnunet.survival.records.table import (
    CENSORED,
    LATE_ENTRY,
    SEEN,
    Finding,
    Record,
    Rows,
    is_missing,
    read_records,
)

# Words of columns that are known only after treatment began, or that tell the outcome by another name.
LATER = re.compile(
    r"relaps|recur|progress|metasta|death|dead|deceas|died|alive|surviv|vital|censor|follow.?up|(^|_)fu(_|$)|respon|"
    r"outcome|(^|_)(os|pfs|dfs|rfs|efs|dss|lrc|dmfs)(_|$)|(^|_)last(_|$)|cause|salvage|adjuvant|toxicit|post.?(op|treat)",
    re.IGNORECASE,
)
# Rank correlation with the time from which a column is another clock rather than a risk factor.
_SAME_CLOCK = 0.95
# Difference in the share of missing cells between patients with and without event that chance hardly makes.
_TELLING_GAP = 0.5
_LEAST_EVENTS = 10
# Events a covariate below which a Cox model is known to be unstable. Source: Peduzzi et al. 1995.
_EVENTS_A_COVARIATE = 10
_SHOWN = 8
# Of all that means missing, what may be a value too: no treatment, say.
_WORDS = ("none", "unknown")
# Of what a guess by the commonest outcome gets wrong, the share that a column must put right to know the outcome.
_TELLING = 0.95
_SEVERAL = 4


@dataclass(frozen=True)
class TableReport:
    """What there is to say of a table.

    Attributes:
        findings: In the order errors, warnings, notes.
        records: Patients that could be read, one each.
        centres: Patients and events by centre; "" where the table does not tell.
        missing: Share of missing cells by covariate.
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
        """Number of patients in whom the event was seen."""
        return sum(record.event == SEEN for record in self.records)


def check(rows: Rows, schema: ClinicalSchema, cases: Sequence[str]) -> TableReport:
    """Check a table.

    Args:
        rows: As it stands in its file.
        schema: What its columns mean.
        cases: Identifiers of all cases that have an image.

    Raises:
        DataError: The schema names a column that the table does not have.
    """
    records, findings = read_records(rows, schema)
    findings += _find_repeated(records)
    records = list({record.patient: record for record in reversed(records)}.values())[::-1]
    listed = {cell for cell in rows.column(schema.patient) if not is_missing(cell, schema)}
    findings += _compare_cases(records, schema, cases, listed)
    findings += _check_use(rows, schema)
    findings += _check_events(records)
    missing = _measure_missing(rows, schema)
    findings += _check_covariates(rows, schema, records, missing)
    findings += _check_sizes(records, schema)
    order = ("error", "warning", "note")
    findings.sort(key=lambda finding: order.index(finding.severity))
    return TableReport(tuple(findings), tuple(records), _count_centres(records), missing)


def _find_repeated(records: Sequence[Record]) -> Iterable[Finding]:
    counts = Counter(record.patient for record in records)
    for patient, count in counts.items():
        if count > 1:
            where = ", ".join(str(record.row) for record in records if record.patient == patient)
            yield Finding("error", f"Patient {patient!r} has {count} rows ({where}); expected one. Keep the right one.")


def _compare_cases(
    records: Sequence[Record], schema: ClinicalSchema, cases: Sequence[str], listed: set[str]
) -> Iterable[Finding]:
    found = {case: schema.find_patient(case) for case in cases}
    strange = [case for case, patient in found.items() if patient is None]
    if strange:
        text = f"The pattern `cases: {schema.cases}` does not fit {_say(strange)}. Correct it."
        yield Finding("error", text)
    imaged = {patient for patient in found.values() if patient is not None}
    without_row, without_image = sorted(imaged - listed), sorted(listed - imaged)
    if cases and not imaged & listed:
        yield Finding(
            "error",
            f"No patient of the table has an image: it lists {_say(sorted(listed))}, the images are of "
            f"{_say(sorted(imaged))}. Set `cases` to a pattern that finds the patient in a case identifier.",
        )
    elif without_row:
        text = f"{len(without_row)} of {len(imaged)} imaged patients have no row: {_say(without_row)}."
        yield Finding("warning", f"{text} They are left out of training.")
    if imaged & listed and without_image:
        text = f"{len(without_image)} of {len(listed)} patients have no image: {_say(without_image)}."
        yield Finding("warning", f"{text} They are used with their record alone.")


def _check_use(rows: Rows, schema: ClinicalSchema) -> Iterable[Finding]:
    """Say what stands in the table and is not used, or not as it may seem."""
    named = {*schema.list_columns()}
    unnamed = [name for name in rows.columns if name not in named]
    if unnamed:
        yield Finding(
            "note",
            f"The schema does not name the column(s) {_say([*map(repr, unnamed)])}: they are not used. Add them to "
            "`covariates`, or to `ignored` with the reason.",
        )
    if schema.entry is not None:
        yield Finding("note", f"{schema.entry!r} is read as the time of entry. {LATE_ENTRY}")
    if "missing" not in schema.model_fields_set:
        return
    left_out = {*MISSING} - {plain(marker) for marker in schema.missing}
    for name, form in schema.covariates.items():
        values = {*map(plain, form.order)}
        cells = [cell for cell in rows.column(name) if plain(cell) in left_out - values]
        kept = Counter(cell for cell in cells if not is_missing(cell, schema, form))
        if kept:
            yield Finding(
                "note",
                f"{name!r}: {_say_counts(kept)} is read as a value, since `missing` of the schema replaces the usual "
                "markers. Add it there if it means missing.",
            )


def _check_events(records: Sequence[Record]) -> Iterable[Finding]:
    kinds = Counter(record.event for record in records)
    none = f"None of {len(records)} patients is"
    if records and not kinds[SEEN]:
        yield Finding("error", f"{none} with the event (codes of `event`), so that nothing can be learned.")
    if records and not kinds[CENSORED]:
        yield Finding("warning", f"{none} censored (codes of `event`). Is that so?")
    competing = {kind: count for kind, count in kinds.items() if kind not in (SEEN, CENSORED)}
    if competing:
        listed = ", ".join(f"{count} with code {kind}" for kind, count in sorted(competing.items()))
        yield Finding(
            "warning",
            f"Competing events: {listed}. They count as censored, so that risks are cause-specific and survival curves "
            "say what would be if nobody had them.",
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
        held = f" Read as missing: {_say_counts(markers)}." if markers else ""
        if missing[name] == 1 or len(set(known)) < 2:
            value = f"the same, {known[0]!r}, in all patients" if known else "missing in all patients"
            text = f"{name!r} is {value}, so that it tells nothing. Move it to `ignored`."
            yield Finding("warning", text + held + _say_how_to_keep(markers, schema, tuple(MISSING)))
            continue
        yield from _find_identity(name, form.type, known)
        yield from _find_outcome_leaks(name, form.type, records)
        if missing[name] > 0:
            few = form.type != "numeric" and len(set(known)) <= _SHOWN
            how = _say_how_to_keep(markers, schema, _WORDS) if few else ""
            yield Finding("note", f"{name!r} is missing in {missing[name]:.0%} of {len(rows.rows)} rows.{held}{how}")


def _say_counts(cells: Counter[str]) -> str:
    return ", ".join(f"{cell!r} ({count} rows)" for cell, count in sorted(cells.items()))


def _say_how_to_keep(markers: Counter[str], schema: ClinicalSchema, doubtful: Sequence[str]) -> str:
    """Say how a value is kept that means missing only because the schema does not say what does."""
    found = [] if "missing" in schema.model_fields_set else sorted({*map(plain, markers)} & {*doubtful})
    if not found:
        return ""
    others = ", ".join(repr(marker) for marker in MISSING if marker and marker not in found)
    said = " or ".join(map(repr, found))
    return f" If {said} is a value, write in the schema what means missing without it: `missing: [{others}]`."


def _find_identity(name: str, kind: str, known: Sequence[float | str]) -> Iterable[Finding]:
    """Look for what says who somebody is."""
    if kind == "categorical" and len(known) >= _SHOWN and len(set(known)) > 0.8 * len(known):
        yield Finding(
            "warning",
            f"{name!r} has {len(set(known))} different values in {len(known)} patients: it says who somebody is, "
            "and not what they have. Move it to `ignored`, or make groups of its values.",
        )
    if kind != "numeric":
        return
    if is_identifier_name(name):
        yield Finding(
            "warning",
            f"{name!r} sounds like an identifier. If so, move it to `ignored`; a code of groups is categorical.",
        )
    elif are_identifiers([*map(float, known)]):
        yield Finding(
            "warning",
            f"{name!r} is another whole number in each patient, as an identifier is. If it says who somebody is, and "
            "not what they have, move it to `ignored`.",
        )


def _find_outcome_leaks(name: str, kind: str, records: Sequence[Record]) -> Iterable[Finding]:
    """Look for what was measured after treatment began, by the column's name and by what it knows of the outcome."""
    if LATER.search(name):
        yield Finding(
            "warning",
            f"{name!r} sounds like something that is known only after treatment began. If so, move it to `ignored`: a "
            "model that reads it predicts the past.",
        )
    if _determines_event(name, records):
        yield Finding(
            "warning",
            f"{name!r} tells in nearly all patients whether they had the event: it is the outcome by another name, or "
            "was measured later. Move it to `ignored`.",
        )
    groups = [[record for record in records if (record.event == SEEN) == seen] for seen in (True, False)]
    if all(len(group) >= _SHOWN for group in groups):
        shares = [sum(record.values[name] is None for record in group) / len(group) for group in groups]
        if abs(shares[0] - shares[1]) > _TELLING_GAP:
            yield Finding(
                "warning",
                f"{name!r} is missing in {shares[0]:.0%} of patients with the event and in {shares[1]:.0%} of the "
                "others: whether it was measured tells the outcome. Was it measured later?",
            )
    pairs = [(record.values[name], record.time) for record in records if record.values[name] is not None]
    if kind == "numeric" and len(pairs) >= _SHOWN:
        rank = float(spearmanr([pair[0] for pair in pairs], [pair[1] for pair in pairs]).statistic)
        if not math.isnan(rank) and abs(rank) > _SAME_CLOCK:
            yield Finding(
                "warning",
                f"{name!r} rises and falls with the time (rank correlation {rank:.2f}): it is a measure of follow-up, "
                "and not of the patient. Move it to `ignored`.",
            )


def _determines_event(name: str, records: Sequence[Record]) -> bool:
    """Whether few values, each in several patients, part those with the event from the others."""
    values: dict[object, Counter[bool]] = {}
    for record in records:
        if record.values[name] is not None:
            values.setdefault(record.values[name], Counter())[record.event == SEEN] += 1
    known = sum(found.total() for found in values.values())
    events = sum(found[True] for found in values.values())
    if known < _LEAST_EVENTS or not 0 < events < known or len(values) > known / _SEVERAL:
        return False
    right = sum(max(found.values()) for found in values.values())
    # As much better than the commonest guess as is left to be.
    return right - max(events, known - events) >= _TELLING * min(events, known - events)


def _check_sizes(records: Sequence[Record], schema: ClinicalSchema) -> Iterable[Finding]:
    events = sum(record.event == SEEN for record in records)
    if 0 < events < _LEAST_EVENTS:
        yield Finding(
            "warning", f"{events} events in {len(records)} patients: intervals of any score will be next to useless."
        )
    covariates = len(schema.covariates)
    if covariates and 0 < events < _EVENTS_A_COVARIATE * covariates:
        yield Finding(
            "note",
            f"{events} events for {covariates} covariates, {events / covariates:.1f} each; models without penalty need "
            f"{_EVENTS_A_COVARIATE}. Keep those that are known to matter, chosen without a look at this table.",
        )


def _count_centres(records: Sequence[Record]) -> dict[str, tuple[int, int]]:
    patients, events = (
        Counter(record.centre for record in records),
        Counter(record.centre for record in records if record.event == SEEN),
    )
    return {centre: (patients[centre], events[centre]) for centre in sorted(patients)}


def _say(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) + more) or "none"
