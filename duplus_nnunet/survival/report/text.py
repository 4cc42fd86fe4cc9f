"""Formats the scores of a study as text tables, for the terminal and in Markdown."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from duplus_nnunet.survival.evaluation.calibration import STEEPEST
from duplus_nnunet.survival.evaluation.intervals import SCORES, Value
from duplus_nnunet.survival.evaluation.study import Study
from duplus_nnunet.text_table import format_table

DIRECTIONS = (
    "Concordance (C) and AUC: higher is better, 0.5 is chance. Integrated Brier score: lower is better. Brier skill: "
    "higher is better, 0 is Kaplan-Meier, 1 is perfect. The pooled AUC pools the pairs of all horizons; it is not a "
    "mean over horizons."
)

_WHOLE_DAYS = 10


def describe_study(study: Study) -> Iterator[str]:
    """Format scores, differences from the first method, and left-out centres as lines for the terminal."""
    rows: list[tuple[str, ...]] = []
    for title, table, signed in _list_tables(study):
        if table:
            names = _list_scores(table)
            rows.append((title, *names))
            rows += [
                (method, *(format_value(values[score], signed) for score in names)) for method, values in table.items()
            ]
    yield from format_table(rows)
    yield ""
    yield from format_table(list(list_horizon_rows(study)))
    yield ""
    yield from describe_choices(study)
    yield f"Scored: {study.patients} held-out patients, {study.events} with the event. {DIRECTIONS}"


def describe_choices(study: Study) -> Iterator[str]:
    """Say how often each method was chosen by those that choose among others, one sentence each."""
    for name, seeds in study.chosen.items():
        counts = Counter(method for seed in seeds for method in seed)
        folds = counts.total()
        listed = ", ".join(f"{method} {count}" for method, count in counts.most_common())
        yield f"Chosen within the training patients of {folds} folds by {name!r}: {listed}."


def list_horizon_rows(study: Study) -> Iterator[tuple[str, ...]]:
    """List AUC, Brier score and calibration of each method at each horizon, heading first."""
    yield ("method", "horizon (days)", "AUC", "Brier", "observed less predicted survival", "slope (ideal: 1)")
    for name, rows in study.at_horizons.items():
        for scores, calibration in zip(rows, study.calibration[name], strict=True):
            yield (
                name,
                format_days(scores.horizon),
                format_value(scores.auc),
                format_value(scores.brier),
                format_value(calibration.excess, signed=True),
                format_slope(calibration.slope),
            )


def _list_tables(study: Study) -> Iterator[tuple[str, Mapping[str, Mapping[str, Value]], bool]]:
    yield "", study.scores, False
    yield f"{study.methods[0]} less", study.differences, True
    if study.centres is not None:
        yield f"{len(study.centres.centres)} centres left out", study.centres.scores, False


def tabulate(first: str, table: Mapping[str, Mapping[str, Value]], signed: bool = False) -> Iterator[str]:
    """Format scores as a Markdown table.

    Args:
        first: Heading of the first column.
        table: Values by row and score.
        signed: Whether the values are differences, written with their sign.
    """
    names = _list_scores(table)
    yield from start_table(first, *names)
    for name, values in table.items():
        yield f"| {escape(name)} | " + " | ".join(format_value(values[score], signed) for score in names) + " |"


def start_table(*headings: str) -> Iterator[str]:
    """Format the heading of a Markdown table."""
    yield "| " + " | ".join(headings) + " |"
    yield "|---" * len(headings) + "|"


def escape(text: str) -> str:
    """Escape a text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _list_scores(table: Mapping[str, Mapping[str, Value]]) -> list[str]:
    return [score for score in SCORES if all(score in values for values in table.values())]


def format_value(value: Value, signed: bool = False, digits: int = 3) -> str:
    """Format a value with its confidence interval; "none" where it is not defined."""
    form = f"{'+' if signed else ''}.{digits}f"
    if math.isnan(value.value):
        return "none"
    if value.interval is None:
        return f"{value.value:{form}}"
    return f"{value.value:{form}} ({value.interval[0]:{form}} to {value.interval[1]:{form}})"


def format_slope(slope: Value) -> str:
    """Format a calibration slope with its interval; the bound, at which a slope that diverges stays, is named."""
    if abs(slope.value) >= STEEPEST:
        return f"undefined (diverges; the estimate is at its bound, {slope.value:.0f})"
    return format_value(slope, digits=2)


def format_days(days: float) -> str:
    """Format a time in days: whole days from 10 on, three significant digits below."""
    return f"{days:.0f}" if days >= _WHOLE_DAYS else f"{days:.3g}"
