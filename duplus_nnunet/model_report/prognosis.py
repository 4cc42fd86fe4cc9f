"""Shows a prognosis from the files of `duplus survival evaluate`: nothing is computed again."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from duplus_nnunet.model_report.blocks import Block, Cell, Chart, Paragraph, Section, Table
from duplus_nnunet.model_report.drawing import (
    FONT,
    GREY,
    Estimate,
    choose_look,
    draw_estimates,
    draw_legend,
    make_figure,
    style_axes,
)
from duplus_nnunet.model_report.gathering import ReportSource
from duplus_nnunet.model_report.prognosis_evidence import show_evidence
from duplus_nnunet.model_report.prognosis_forms import (
    AGAIN,
    METRICS_NAME,
    PREDICTIONS_NAME,
    StudyForm,
    format_value,
    list_cells,
)
from duplus_nnunet.model_report.prognosis_groups import show_groups
from duplus_nnunet.model_report.prognosis_horizons import show_horizons
from duplus_nnunet.model_report.result_files import EstimateForm, read_result
from duplus_nnunet.table_files import read_csv

ANCHOR = "prognosis"
_TITLE = "Prognosis"
_COMMAND = "duplus survival evaluate -o FOLDER"


def list_patients(source: ReportSource) -> frozenset[str]:
    """List the identifiers of all cases of a model or dataset, and of their patients; none if they are not known."""
    if source.table is None:
        return frozenset()
    cases = {**source.table.cases, **source.table.tests}
    return frozenset((*cases, *(case.patient for case in cases.values())))


def make_prognosis(folder: Path | None, patients: Collection[str] = ()) -> Section:
    """Show the evaluation of a prognosis.

    Args:
        folder: Folder that `duplus survival evaluate -o FOLDER` wrote; None: there is none.
        patients: Cases and patients of the model or dataset that it is shown with; none: not known.

    Raises:
        DataError: Its metrics.json, or one of its tables, cannot be read.
    """
    if folder is None:
        text = (
            "There is no prognosis. Evaluate one with duplus survival evaluate DATASET -o FOLDER, and give the folder "
            "with --prognosis FOLDER."
        )
        return Section(ANCHOR, _TITLE, [Paragraph(text, "absent")])
    study = read_result(folder / METRICS_NAME, StudyForm, _COMMAND)
    blocks: list[Block] = [Paragraph(_describe(study)), *(Paragraph(note, "warning") for note in study.notes)]
    blocks += [Paragraph(text, "warning") for text in _find_strangers(folder, patients)]
    blocks += [*_show_scores(study), *show_groups(study, folder), *show_horizons(study), *_show_calibration(study)]
    blocks += show_evidence(folder)
    return Section(ANCHOR, _TITLE, blocks)


def _find_strangers(folder: Path, patients: Collection[str]) -> Iterator[str]:
    """Say that no patient of a prognosis is one of the model or dataset."""
    file = folder / PREDICTIONS_NAME
    if not patients or not file.is_file():
        return
    table = read_csv(file, AGAIN)
    if "patient" not in table.columns or not table.rows:
        return
    scored = {row.cells[table.columns.index("patient")] for row in table.rows}
    if scored.isdisjoint(name for case in patients for name in _list_names(case)):
        yield f"None of the {len(scored)} patients of this prognosis is a patient of this model or dataset."


def _list_names(case: str) -> Iterator[str]:
    """Yield the names that a patient of a case can have: "Source_P01" and "CT/P01" are of P01, not of "P0" or "1"."""
    words = list(re.finditer(r"[^\W_]+", case))
    yield case
    for number, first in enumerate(words):
        yield from (case[first.start() : last.end()] for last in words[number:])


def _describe(study: StudyForm) -> str:
    methods = ", ".join(study.scores)
    scored = "" if study.scored is None else f"{study.scored.patients} patients, {study.scored.events} with the event. "
    return (
        f"{scored}Methods, cross-validated on the same folds: {methods}. Every prediction is of a held-out patient. "
        f"Horizons: {', '.join(f'{day:.0f}' for day in study.horizons_days)} days."
    )


def _show_scores(study: StudyForm) -> Iterator[Block]:
    names = list(dict.fromkeys(name for scores in study.scores.values() for name in scores))
    directions = {name: "higher" if study.higher_is_better.get(name, True) else "lower" for name in names}
    headings = ("method", *(f"{name} ({directions[name]} is better)" for name in names))
    yield Table("prognosis_scores", "Scores of all methods, with 95 % intervals", headings, _list(study.scores, names))
    if study.first_less_others:
        title = f"{study.first_method} less each other method, with 95 % intervals of the paired difference"
        yield Table("prognosis_differences", title, ("other method", *names), _list(study.first_less_others, names))
    first = names[0] if names else ""
    estimates = [
        Estimate(method, scores[first].number, scores[first].interval)
        for method, scores in study.scores.items()
        if first in scores
    ]
    if estimates:
        yield Chart(
            "prognosis_methods",
            f"{first} of each method",
            f"With its 95 % interval; {directions[first]} is better."
            + (" 0.5 is chance." if first.endswith("C") or "AUC" in first else ""),
            ", ".join(f"{each.name} {each.value:.3f}" for each in estimates) + ".",
            draw_estimates(first, estimates),
            [
                {"method": method, "score": name, **list_cells(value)}
                for method, scores in study.scores.items()
                for name, value in scores.items()
            ],
        )


def _list(scores: Mapping[str, Mapping[str, EstimateForm]], names: Sequence[str]) -> list[tuple[Cell, ...]]:
    empty = EstimateForm(value=None)
    return [(method, *(format_value(found.get(name, empty)) for name in names)) for method, found in scores.items()]


def _show_calibration(study: StudyForm) -> Iterator[Block]:
    rows: list[tuple[Cell, ...]] = [
        (method, f"{row.horizon_days:.0f}", format_value(row.observed_less_predicted), format_value(row.slope))
        for method, listed in study.calibration.items()
        for row in listed
    ]
    known = [group for bins in study.calibration_groups for group in bins.groups if group.observed is not None]
    if known:
        text = "; ".join(
            f"{bins.horizon_days:.0f} days: "
            + ", ".join(
                f"predicted {each.predicted:.2f}, observed {each.observed:.2f}"
                for each in bins.groups
                if each.observed is not None
            )
            for bins in study.calibration_groups
        )
        yield Chart(
            "prognosis_calibration",
            f"Calibration: {study.first_method}",
            "Each point is a group of patients with similar predicted survival, with the 95 % interval of the observed "
            "survival by Kaplan-Meier. On the dashed line, both are equal.",
            text + ".",
            _draw_calibration(study),
            [
                {
                    "days": bins.horizon_days, "patients": group.patients, "predicted": group.predicted,
                    "observed": group.observed, "low": (group.interval or (None, None))[0],
                    "high": (group.interval or (None, None))[1],
                }
                for bins in study.calibration_groups
                for group in bins.groups
            ],
        )  # fmt: skip
    if rows:
        headings = ("method", "days", "observed less predicted survival", "calibration slope")
        yield Table("prognosis_slopes", "Calibration of all methods (ideal: 0 and 1)", headings, rows)


def _draw_calibration(study: StudyForm) -> Figure:
    figure = make_figure(4.4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle="--")
    for number, bins in enumerate(study.calibration_groups):
        look = choose_look(number)
        known = [group for group in bins.groups if group.observed is not None]
        for group in known:
            if group.interval is not None:
                axes.plot([group.predicted] * 2, group.interval, color=look.colour, linewidth=1.2)
        axes.plot(
            [group.predicted for group in known], [group.observed or 0.0 for group in known], look.marker,
            color=look.colour, markersize=6.5, label=f"{bins.horizon_days:.0f} days",
        )  # fmt: skip
    axes.set(xlabel="predicted survival", ylabel="observed survival", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_aspect("equal")
    style_axes(axes)
    axes.tick_params(labelsize=FONT - 1)
    draw_legend(figure, axes, 3)
    return figure
