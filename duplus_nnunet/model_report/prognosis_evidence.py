"""Shows decision curves, hazard ratios and permutation importance from the tables of `duplus survival evaluate`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from duplus_nnunet.errors import DataError
from duplus_nnunet.model_report.blocks import Block, Cell, Chart, Paragraph
from duplus_nnunet.model_report.drawing import (
    GREY,
    MOST_LINES,
    Estimate,
    Line,
    describe_cut,
    draw_estimates,
    draw_legend,
    draw_lines,
    make_figure,
    style_axes,
)
from duplus_nnunet.model_report.prognosis_forms import AGAIN
from duplus_nnunet.table_files import read_csv

DECISION_NAME, RATIOS_NAME, IMPORTANCE_NAME = "decision_curves.csv", "hazard_ratios.csv", "permutation_importance.csv"
_DECISION = ("method", "horizon (days)", "threshold of predicted risk", "net benefit", "net benefit of treating all")
_RATIOS = ("covariate", "per", "hazard ratio", "lower limit (95 %)", "upper limit (95 %)")
_IMPORTANCE = (
    "method", "column", "drop of Harrell's C", "lower limit (95 %)", "upper limit (95 %)", "Harrell's C before",
)  # fmt: skip
_NOT_ESTIMATED = "not estimated"
# Thresholds that the description names.
_NAMED = (0.1, 0.3, 0.5)
_LOWEST = -0.05
# Intervals beyond it, or its inverse, leave the drawing.
_SMALLEST_RATIO = 0.01

_Row = Mapping[str, str]


def show_evidence(folder: Path) -> Iterator[Block]:
    """Show the tables that a folder has; the others are named.

    Raises:
        DataError: A table is damaged.
    """
    shows: Mapping[str, Callable[[Path], Iterator[Block]]] = {
        DECISION_NAME: _show_decision,
        RATIOS_NAME: _show_ratios,
        IMPORTANCE_NAME: _show_importance,
    }
    for name, show in shows.items():
        if (folder / name).is_file():
            yield from show(folder / name)
    missing = [name for name in shows if not (folder / name).is_file()]
    if missing:
        yield Paragraph(
            f"Not shown, as the folder has no such file: {', '.join(missing)}. {AGAIN} Importance needs a method that "
            "predicts from records alone.",
            "absent",
        )


def _show_decision(file: Path) -> Iterator[Block]:
    """Show a decision curve for each horizon."""
    rows = _read(file, _DECISION)
    numbers = [
        {"method": row["method"], **{key: _read_number(file, row[key]) for key in _DECISION[1:]}} for row in rows
    ]
    for day in dict.fromkeys(row["horizon (days)"] for row in numbers):
        own = [row for row in numbers if row["horizon (days)"] == day]
        yield Chart(
            f"decision_curves_{day:g}",
            f"Decision curves at {day:g} days",
            "Net benefit of treating patients whose predicted risk of the event by then is at or above a threshold: "
            "the share rightly treated less the share treated in vain, weighted by the odds of the threshold. A method "
            "is of use at thresholds where its line is above those of treating all patients and of treating none (0).",
            _describe_decision(own),
            _draw_decision(own),
            own,
        )


def _draw_decision(rows: Sequence[Mapping[str, Cell]]) -> Figure:
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))[: MOST_LINES - 1]
    figure = make_figure(3.6 + 0.18 * len(methods))
    axes = figure.subplots()
    curves = {name: [row for row in rows if row["method"] == name] for name in methods}
    lines = [Line(name, *_list_points(own, "net benefit")) for name, own in curves.items()]
    lines.append(Line("treat all", *_list_points(next(iter(curves.values())), "net benefit of treating all")))
    draw_lines(axes, lines)
    axes.axhline(0, color=GREY, linewidth=0.9, linestyle=":")
    highest = max((value for line in lines for value in line.y if not math.isnan(value)), default=0.1)
    axes.set(xlabel="threshold of predicted risk", ylabel="net benefit", xlim=(0, 1), ylim=(_LOWEST, highest * 1.15))
    style_axes(axes)
    draw_legend(figure, axes, 1)
    return figure


def _list_points(rows: Sequence[Mapping[str, Cell]], key: str) -> tuple[list[float], list[float]]:
    return [_to_float(row[key]) for row in rows], [_to_float(row["threshold of predicted risk"]) for row in rows]


def _describe_decision(rows: Sequence[Mapping[str, Cell]]) -> str:
    """Give the net benefit of each method at the thresholds that are nearest to 10, 30 and 50 %."""
    levels = sorted({_to_float(row["threshold of predicted risk"]) for row in rows})
    texts = []
    for level in dict.fromkeys(min(levels, key=lambda known: abs(known - named)) for named in _NAMED):
        own = [row for row in rows if row["threshold of predicted risk"] == level]
        values = [f"{row['method']} {_format(row['net benefit'])}" for row in own]
        texts.append(f"{level:.0%}: {', '.join(values)}, treat all {_format(own[0]['net benefit of treating all'])}")
    return f"Net benefit at thresholds of {'; '.join(texts)}."


def _show_ratios(file: Path) -> Iterator[Block]:
    """Show the hazard ratios as a forest plot, or the reason why they are not estimated."""
    table = read_csv(file, AGAIN)
    if table.columns == (_NOT_ESTIMATED,):
        yield Paragraph(" ".join(row.cells[0] for row in table.rows), "absent")
        return
    numbers = [
        {key: row[key] if key in _RATIOS[:2] else _read_number(file, row[key]) for key in _RATIOS}
        for row in _read(file, _RATIOS)
    ]
    estimates = [_to_estimate(_name_ratio(row), row, "hazard ratio") for row in numbers]
    yield Chart(
        "hazard_ratios",
        "Hazard ratios",
        "Of a Cox model of all patients, each adjusted for the others, with 95 % intervals; above 1: worse. They "
        "describe associations in these patients, and the model is not the one that is evaluated above."
        + describe_cut(len(estimates)),
        "; ".join(f"{each.name} {_format(each.value)}" for each in estimates) + ".",
        _draw_ratios(estimates),
        numbers,
    )


def _name_ratio(row: Mapping[str, Cell]) -> str:
    return f"{row['covariate']} (per {row['per']})" if row["per"] else str(row["covariate"])


def _draw_ratios(estimates: Sequence[Estimate]) -> Figure:
    figure = draw_estimates("hazard ratio (logarithmic axis)", estimates)
    (axes,) = figure.axes
    axes.set_xscale("log")
    axes.axvline(1, color=GREY, linewidth=0.9, linestyle=":")
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, _SMALLEST_RATIO), min(high, 1 / _SMALLEST_RATIO))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    return figure


def _show_importance(file: Path) -> Iterator[Block]:
    """Show the permutation importance of the columns of the clinical table."""
    rows = _read(file, _IMPORTANCE)
    numbers = [
        {key: row[key] if key in _IMPORTANCE[:2] else _read_number(file, row[key]) for key in _IMPORTANCE}
        for row in rows
    ]
    estimates = [_to_estimate(str(row["column"]), row, "drop of Harrell's C") for row in numbers]
    figure = draw_estimates("drop of Harrell's C", estimates)
    figure.axes[0].axvline(0, color=GREY, linewidth=0.9, linestyle=":")
    method = numbers[0]["method"] if numbers else ""
    before = _format(numbers[0]["Harrell's C before"]) if numbers else None
    yield Chart(
        "permutation_importance",
        f"Permutation importance: {method}",
        f"By how much Harrell's C of held-out patients ({before}) drops when a column is shuffled among them: mean "
        "over shuffles, with 95 % intervals that reflect which patients are evaluated. Columns that carry the same "
        "information share it, and each may seem unimportant." + describe_cut(len(estimates)),
        "; ".join(f"{each.name} {_format(each.value)}" for each in estimates) + ".",
        figure,
        numbers,
    )


def _to_estimate(name: str, row: Mapping[str, Cell], key: str) -> Estimate:
    low, high = row["lower limit (95 %)"], row["upper limit (95 %)"]
    return Estimate(
        name, _to_float(row[key]), None if low is None or high is None else (_to_float(low), _to_float(high))
    )


def _read(file: Path, columns: Sequence[str]) -> list[_Row]:
    """Read the rows of a table that must have some columns."""
    table = read_csv(file, AGAIN)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(f"{file} has no column {missing[0]!r}; it has {', '.join(table.columns)}. {AGAIN}")
    for row in table.rows:
        if len(row.cells) != len(table.columns):
            raise DataError(
                f"Line {row.line} of {file} has {len(row.cells)} cells; expected {len(table.columns)}. {AGAIN}"
            )
    return [dict(zip(table.columns, row.cells, strict=True)) for row in table.rows]


def _read_number(file: Path, cell: str) -> float | None:
    """Read a number; None for an empty cell."""
    try:
        return float(cell) if cell else None
    except ValueError as error:
        raise DataError(f"{file} has {cell!r} where a number is expected. {AGAIN}") from error


def _to_float(cell: Cell) -> float:
    return float(cell) if isinstance(cell, (int, float)) else math.nan


def _format(cell: Cell) -> str:
    value = _to_float(cell)
    return "not defined" if math.isnan(value) else f"{value:.3f}"
