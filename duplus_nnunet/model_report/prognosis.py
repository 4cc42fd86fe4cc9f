"""Shows a prognosis from the files of `duplus survival evaluate`: nothing is computed again."""

from collections.abc import Iterator, Mapping, Sequence
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
    escape,
    make_figure,
    style_axes,
)
from duplus_nnunet.model_report.group_curves import GroupCurve, read_group_curves
from duplus_nnunet.model_report.result_files import EstimateForm, ResultForm, format_estimate, read_result

ANCHOR = "prognosis"
_TITLE = "Prognosis"
_COMMAND = "duplus survival evaluate -o FOLDER"
METRICS_NAME, PREDICTIONS_NAME = "metrics.json", "predictions.csv"


class ScoredForm(ResultForm):
    """How many patients were scored, and how many of them had the event."""

    patients: int
    events: int


class SlopeForm(ResultForm):
    """Calibration of a method at one horizon (days): observed less predicted survival, and the slope."""

    horizon_days: float
    observed_less_predicted: EstimateForm
    slope: EstimateForm


class BinForm(ResultForm):
    """Patients of similar predicted survival: predicted and observed survival, 0 to 1."""

    patients: int
    predicted: float
    observed: float | None
    interval: tuple[float, float] | None = None


class BinsForm(ResultForm):
    """The groups of one horizon (days)."""

    horizon_days: float
    groups: Sequence[BinForm]


class RiskGroupForm(ResultForm):
    """A risk group, and its observed survival (0 to 1) at each horizon."""

    name: str
    patients: int
    events: int
    survival_at_horizons: Sequence[EstimateForm]


class SplitForm(ResultForm):
    """The risk groups of one seed."""

    seed: int
    groups: Sequence[RiskGroupForm]
    log_rank_p_descriptive: float | None = None


class HorizonForm(ResultForm):
    """Area under the time-dependent ROC curve and Brier score of a method at one horizon (days)."""

    horizon_days: float
    AUC: EstimateForm
    Brier: EstimateForm | None = None


class StudyForm(ResultForm):
    """Content of metrics.json; scores and their directions are by name."""

    version: int
    horizons_days: Sequence[float]
    higher_is_better: Mapping[str, bool]
    scores: Mapping[str, Mapping[str, EstimateForm]]
    scored: ScoredForm | None = None
    first_method: str | None = None
    first_less_others: Mapping[str, Mapping[str, EstimateForm]] = {}
    at_horizons: Mapping[str, Sequence[HorizonForm]] = {}
    calibration: Mapping[str, Sequence[SlopeForm]] = {}
    calibration_groups: Sequence[BinsForm] = ()
    risk_groups: Sequence[SplitForm] = ()
    notes: Sequence[str] = ()


def make_prognosis(folder: Path | None) -> Section:
    """Show the evaluation of a prognosis.

    Args:
        folder: Folder that `duplus survival evaluate -o FOLDER` wrote; None: there is none.

    Raises:
        DataError: Its metrics.json or predictions.csv cannot be read.
    """
    if folder is None:
        text = (
            "There is no prognosis. Evaluate one with duplus survival evaluate DATASET -o FOLDER, and give the folder "
            "with --prognosis FOLDER."
        )
        return Section(ANCHOR, _TITLE, [Paragraph(text, "absent")])
    study = read_result(folder / METRICS_NAME, StudyForm, _COMMAND)
    blocks: list[Block] = [Paragraph(_describe(study)), *(Paragraph(note, "warning") for note in study.notes)]
    blocks += [*_show_scores(study), *_show_groups(study, folder), *_show_auc(study), *_show_calibration(study)]
    return Section(ANCHOR, _TITLE, blocks)


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
                {"method": method, "score": name, **_to_cells(value)}
                for method, scores in study.scores.items()
                for name, value in scores.items()
            ],
        )


def _list(scores: Mapping[str, Mapping[str, EstimateForm]], names: Sequence[str]) -> list[tuple[Cell, ...]]:
    empty = EstimateForm(value=None)
    return [(method, *(_format(found.get(name, empty)) for name in names)) for method, found in scores.items()]


def _format(value: EstimateForm) -> str | None:
    return format_estimate(value.value, value.interval)


def _to_cells(value: EstimateForm) -> dict[str, Cell]:
    low, high = value.interval or (None, None)
    return {"value": value.value, "low": low, "high": high}


def _show_groups(study: StudyForm, folder: Path) -> Iterator[Block]:
    """Show the observed survival of the risk groups of the first method and seed."""
    split = next((split for split in study.risk_groups if split.groups), None)
    if split is None:
        yield Paragraph("There are no risk groups: the first method has no risk cut-off.", "absent")
        return
    curves, reason = read_group_curves(folder / PREDICTIONS_NAME, study.first_method or "", split.seed)
    wrong = "" if curves is None else _find_difference(curves, split, study.horizons_days)
    if curves is None or wrong:
        yield Paragraph(reason or wrong, "absent")
    used = None if wrong else curves
    ends = ", ".join(f"{group.name} {group.patients} ({group.events} with the event)" for group in split.groups)
    yield Chart(
        "kaplan_meier",
        f"Kaplan-Meier estimates by predicted risk: {study.first_method}",
        "Held-out patients, in groups by a risk cut-off from the training patients of each fold. Points with 95 % "
        "intervals are the estimates at the horizons; ticks are censored patients." + _describe_p(split),
        f"Patients by risk group: {ends}.",
        _draw_groups(study, split, used),
        [*_list_points(study, split), *([] if used is None else _list_steps(used))],
    )


def _describe_p(split: SplitForm) -> str:
    p = split.log_rank_p_descriptive
    return "" if p is None else f" Log-rank p = {p:.3g}, which is descriptive: folds share training patients."


def _find_difference(curves: Mapping[str, GroupCurve], split: SplitForm, horizons: Sequence[float]) -> str:
    """Compare curves with the estimates at the horizons; entries or competing events would make them differ."""
    for group in split.groups:
        for day, estimate in zip(horizons, group.survival_at_horizons, strict=True):
            curve = curves.get(group.name)
            if curve is None or (estimate.value is not None and abs(curve.at(day) - estimate.value) > 1e-6):
                return (
                    f"The curves are not drawn: by times and events in {PREDICTIONS_NAME}, the survival of the group "
                    f"{group.name!r} at {day:.0f} days differs from that in {METRICS_NAME}, as with delayed entry."
                )
    return ""


def _list_points(study: StudyForm, split: SplitForm) -> Iterator[dict[str, Cell]]:
    for group in split.groups:
        for day, estimate in zip(study.horizons_days, group.survival_at_horizons, strict=True):
            yield {"group": group.name, "days": day, "kind": "at the horizon", "at risk": None, **_to_cells(estimate)}


def _list_steps(curves: Mapping[str, GroupCurve]) -> Iterator[dict[str, Cell]]:
    for name, curve in curves.items():
        for day, value, at_risk in zip(curve.days, curve.survival, curve.at_risk, strict=True):
            yield {
                "group": name, "days": day, "kind": "step", "at risk": at_risk, "value": value, "low": None,
                "high": None,
            }  # fmt: skip


def _draw_groups(study: StudyForm, split: SplitForm, curves: Mapping[str, GroupCurve] | None) -> Figure:
    figure = make_figure(3.9)
    axes = figure.subplots()
    longest = max([*study.horizons_days, *(curve.last for curve in (curves or {}).values())], default=0.0)
    for number, group in enumerate(split.groups):
        look = choose_look(number)
        label = f"{group.name} risk ({group.patients}, {group.events} events)"
        curve = None if curves is None else curves[group.name]
        if curve is not None:
            axes.step(
                [0, *curve.days, curve.last], [1, *curve.survival, curve.at(curve.last)], where="post",
                color=look.colour, linestyle=look.line, linewidth=1.8, label=label,
            )  # fmt: skip
            axes.plot(curve.censored, [curve.at(day) for day in curve.censored], "|", color=look.colour, markersize=7)
        # Groups are drawn beside one another, so that their intervals do not cover each other.
        shift = (number - (len(split.groups) - 1) / 2) * 0.015 * longest
        days = [day + shift for day in study.horizons_days]
        for day, estimate in zip(days, group.survival_at_horizons, strict=True):
            if estimate.interval is not None:
                axes.plot([day, day], estimate.interval, color=look.colour, linewidth=1.2)
        axes.plot(
            days, [estimate.number for estimate in group.survival_at_horizons], look.marker,
            color=look.colour, markersize=6, label=None if curve is not None else label,
        )  # fmt: skip
    axes.set(xlabel="days", ylabel="free of the event", ylim=(-0.02, 1.03))
    axes.set_xlim(left=0)
    style_axes(axes)
    draw_legend(figure, axes, 1)
    return figure


def _show_auc(study: StudyForm) -> Iterator[Block]:
    """Show the area under the time-dependent ROC curve of each method at each horizon, where the file has it."""
    if not study.at_horizons:
        yield Paragraph(
            "The area under the time-dependent ROC curve at each horizon is not in metrics.json. Run duplus survival "
            "evaluate again with this version.",
            "absent",
        )
        return
    figure = make_figure(3.4 + 0.18 * len(study.at_horizons))
    axes = figure.subplots()
    for number, (method, rows) in enumerate(study.at_horizons.items()):
        look = choose_look(number)
        axes.plot(
            [row.horizon_days for row in rows], [row.AUC.number for row in rows], color=look.colour,
            linestyle=look.line, marker=look.marker, markersize=6, linewidth=1.6, label=escape(method),
        )  # fmt: skip
    axes.axhline(0.5, color=GREY, linewidth=0.9, linestyle=":")
    axes.set(xlabel="days", ylabel="AUC", ylim=(-0.02, 1.02))
    style_axes(axes)
    draw_legend(figure, axes, 1)
    ends = {method: rows[-1].AUC for method, rows in study.at_horizons.items() if rows}
    yield Chart(
        "time_dependent_auc",
        "Area under the time-dependent ROC curve",
        "At each horizon; higher is better, and the dotted line is chance. Intervals are in the CSV file.",
        "At the last horizon: " + ", ".join(f"{name} {_format(value)}" for name, value in ends.items()) + ".",
        figure,
        [
            {"method": method, "days": row.horizon_days, **_to_cells(row.AUC)}
            for method, rows in study.at_horizons.items()
            for row in rows
        ],
    )


def _show_calibration(study: StudyForm) -> Iterator[Block]:
    rows: list[tuple[Cell, ...]] = [
        (method, f"{row.horizon_days:.0f}", _format(row.observed_less_predicted), _format(row.slope))
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
