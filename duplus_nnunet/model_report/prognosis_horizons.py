"""Shows the area under the time-dependent ROC curve and the Brier score of each method at each horizon."""

from collections.abc import Callable, Iterator

from matplotlib.figure import Figure

from duplus_nnunet.model_report.blocks import Block, Cell, Chart, Paragraph
from duplus_nnunet.model_report.drawing import GREY, choose_look, draw_legend, escape, make_figure, style_axes
from duplus_nnunet.model_report.prognosis_forms import AGAIN, HorizonForm, StudyForm, format_value, list_cells
from duplus_nnunet.model_report.result_files import EstimateForm

_Choose = Callable[[HorizonForm], EstimateForm | None]


def show_horizons(study: StudyForm) -> Iterator[Block]:
    """Show both scores at each horizon, where the file has them."""
    if not study.at_horizons:
        yield Paragraph(f"AUC and Brier score at each horizon are not in metrics.json. {AGAIN}", "absent")
        return
    yield Chart(
        "time_dependent_auc",
        "Area under the time-dependent ROC curve",
        "At each horizon; higher is better, and the dotted line is chance. Intervals are in the CSV file.",
        _describe(study, lambda row: row.AUC),
        _draw(study, lambda row: row.AUC, "AUC", 0.5),
        _list_numbers(study, lambda row: row.AUC),
    )
    numbers = _list_numbers(study, lambda row: row.Brier)
    if numbers:
        yield Chart(
            "brier_scores",
            "Brier score",
            "At each horizon; lower is better: 0 is perfect. Intervals are in the CSV file.",
            _describe(study, lambda row: row.Brier),
            _draw(study, lambda row: row.Brier, "Brier score", None),
            numbers,
        )


def _describe(study: StudyForm, choose: _Choose) -> str:
    last = {method: choose(rows[-1]) for method, rows in study.at_horizons.items() if rows}
    return (
        "At the last horizon: " + ", ".join(f"{name} {format_value(each)}" for name, each in last.items() if each) + "."
    )


def _draw(study: StudyForm, choose: _Choose, title: str, chance: float | None) -> Figure:
    figure = make_figure(3.4 + 0.18 * len(study.at_horizons))
    axes = figure.subplots()
    for number, (method, rows) in enumerate(study.at_horizons.items()):
        look = choose_look(number)
        known = [(row.horizon_days, each.number) for row in rows if (each := choose(row)) is not None]
        axes.plot(
            [day for day, _ in known], [value for _, value in known], color=look.colour, linestyle=look.line,
            marker=look.marker, markersize=6, linewidth=1.6, label=escape(method),
        )  # fmt: skip
    if chance is not None:
        axes.axhline(chance, color=GREY, linewidth=0.9, linestyle=":")
        axes.set_ylim(-0.02, 1.02)
    else:
        axes.set_ylim(bottom=0)
    axes.set(xlabel="days", ylabel=title)
    style_axes(axes)
    draw_legend(figure, axes, 1)
    return figure


def _list_numbers(study: StudyForm, choose: _Choose) -> list[dict[str, Cell]]:
    return [
        {"method": method, "days": row.horizon_days, **list_cells(each)}
        for method, rows in study.at_horizons.items()
        for row in rows
        if (each := choose(row)) is not None
    ]
