"""Checks that the end of follow-up agrees with the event where two columns give it, such as death and last contact."""

from collections.abc import Iterable, Sequence

from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, Finding, Record, Rows, is_missing, join_names, read_end

# Share of the patients with the event who have the first column, from which on that column is taken to be of the event.
_NEARLY_ALL = 0.8
# Days by which a last contact may lie after the event: until it is written down.
_LATEST = 31


def check_ends(rows: Rows, schema: ClinicalSchema, records: Sequence[Record]) -> Iterable[Finding]:
    """Warn of patients in whom event and end of follow-up contradict each other, and of exchanged codes."""
    form = schema.time
    if form.otherwise is None:
        return
    end = str(form.column or form.end)
    has_end = {record.row: not is_missing(rows.rows[record.row - 1][end], schema) for record in records}
    with_event = [record for record in records if record.event != CENSORED]
    censored = [record for record in records if record.event == CENSORED]
    if not with_event or not censored:
        return
    shares = [sum(has_end[record.row] for record in some) / len(some) for some in (with_event, censored)]
    if shares[0] <= 1 - _NEARLY_ALL and shares[1] >= _NEARLY_ALL:
        text = (
            f"{end!r} is given in {shares[1]:.0%} of the censored patients and {shares[0]:.0%} of those with an event"
        )
        yield Finding("warning", f"{text}: the codes of `event` may be exchanged.")
    if shares[0] >= _NEARLY_ALL and shares[1] <= 1 - _NEARLY_ALL:
        without = [record.patient for record in with_event if not has_end[record.row]]
        ended = [record.patient for record in censored if has_end[record.row]]
        if without:
            text = f"An event, but no {end!r}: {join_names(without)}. Their time ends at {form.otherwise!r}"
            yield Finding("warning", f"{text}, as if the event were then. Correct these rows.")
        if ended:
            text = f"Censored, though {end!r} is given: {join_names(ended)}. Correct the event or the date."
            yield Finding("warning", text)
    yield from _find_later(rows, schema, with_event)


def _find_later(rows: Rows, schema: ClinicalSchema, records: Sequence[Record]) -> Iterable[Finding]:
    """Find the few patients who were followed for longer after the event than it takes to write it down."""
    end, otherwise = str(schema.time.column or schema.time.end), str(schema.time.otherwise)
    late = []
    for record in records:
        row = rows.rows[record.row - 1]
        if is_missing(row[end], schema) or is_missing(row[otherwise], schema):
            continue
        try:
            after = read_end(row, schema, otherwise) - record.time
        except ValueError:
            continue
        if after > _LATEST:
            late.append(f"{record.patient} ({after:.0f} days)")
    # After a relapse most patients are followed for longer.
    if late and len(late) <= (1 - _NEARLY_ALL) * len(records):
        text = f"{otherwise!r} is later than {end!r} in {join_names(late)}. Correct these rows if the event ends "
        yield Finding("warning", f"{text}follow-up, as death does.")
