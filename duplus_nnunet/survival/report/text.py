"""A study as tables for people: in come scores, out come lines of text, for a terminal or in Markdown."""

import math
from collections.abc import Iterator, Mapping

from duplus_nnunet.survival.evaluation.intervals import SCORES, Value
from duplus_nnunet.survival.evaluation.study import Study
from duplus_nnunet.text_table import format_table

DIRECTIONS = (
    "Higher is better, 0.5 is chance; of the integrated Brier score lower is better; a Brier skill of 0 is "
    "Kaplan-Meier's, 1 is perfect. The pooled AUC is of the pairs of all horizons together, and not a mean over them."
)

_WHOLE_DAYS = 10


def describe_study(study: Study) -> Iterator[str]:
    """Write scores, differences of the first method to the others, and centres, as lines for people."""
    rows: list[tuple[str, ...]] = []
    for title, table, signed in _list_tables(study):
        if table:
            names = _list_scores(table)
            rows.append((title, *names))
            rows += [
                (method, *(format_value(values[score], signed) for score in names)) for method, values in table.items()
            ]
    yield from format_table(rows)
    yield DIRECTIONS


def _list_tables(study: Study) -> Iterator[tuple[str, Mapping[str, Mapping[str, Value]], bool]]:
    yield "", study.scores, False
    yield f"{study.methods[0]} less", study.differences, True
    if study.centres is not None:
        yield f"{len(study.centres.centres)} centres left out", study.centres.scores, False


def tabulate(first: str, table: Mapping[str, Mapping[str, Value]], signed: bool = False) -> Iterator[str]:
    """Write scores as a table in Markdown.

    Args:
        first: Heading of the first column.
        table: By row and score.
        signed: Whether they are differences.
    """
    names = _list_scores(table)
    yield from start_table(first, *names)
    for name, found in table.items():
        yield f"| {escape(name)} | " + " | ".join(format_value(found[score], signed) for score in names) + " |"


def start_table(*headings: str) -> Iterator[str]:
    """Write the head of a table in Markdown."""
    yield "| " + " | ".join(headings) + " |"
    yield "|---" * len(headings) + "|"


def escape(text: str) -> str:
    """Write a text so that it stays in its cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _list_scores(table: Mapping[str, Mapping[str, Value]]) -> list[str]:
    return [score for score in SCORES if all(score in found for found in table.values())]


def format_value(value: Value, signed: bool = False, digits: int = 3) -> str:
    """Write a value with its interval."""
    form = f"{'+' if signed else ''}.{digits}f"
    if math.isnan(value.value):
        return "none"
    if value.interval is None:
        return f"{value.value:{form}}"
    return f"{value.value:{form}} ({value.interval[0]:{form}} to {value.interval[1]:{form}})"


def format_days(days: float) -> str:
    """Write a time in days, as exactly as it matters."""
    return f"{days:.0f}" if days >= _WHOLE_DAYS else f"{days:.3g}"
