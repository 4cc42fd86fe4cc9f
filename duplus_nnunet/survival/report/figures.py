"""Draws the risk groups (Kaplan-Meier) and the calibration of a study as PNG files."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from duplus_nnunet.reporting.colours import BLUE, VERMILION
from duplus_nnunet.survival.evaluation.cross_validation import HIGH, LOW
from duplus_nnunet.survival.evaluation.incidence import estimate_incidence
from duplus_nnunet.survival.evaluation.risk_groups import RiskGroup, RiskGroups
from duplus_nnunet.survival.evaluation.study import Study
from duplus_nnunet.survival.records.outcome import Numbers, Outcome, require_sksurv
from duplus_nnunet.survival.report.text import format_days, format_slope

KAPLAN_MEIER_NAME, CALIBRATION_NAME = "kaplan_meier.png", "calibration.png"
_CURVE_COLOURS = (BLUE, VERMILION)  # distinguishable with colour vision deficiency
_GREY = "#606060"
_DPI, _TICKS = 150, 6
_PANELS_A_ROW, _PANEL_INCHES = 3, 3.3
_WRAP_AT = 105


@dataclass(frozen=True)
class GroupCurve:
    """Kaplan-Meier curve of one group of N patients.

    Attributes:
        name: Shown in the legend.
        times: Days, ascending, (T).
        survival: Estimated event-free survival from each time on, (T).
        low: Lower limit of its 95 % confidence interval, (T).
        high: Upper limit, (T).
        followed: Follow-up of each patient in days, (N).
        censored: Follow-up of the censored patients in days.
        entered: Days at which each patient came under observation, (N); None: no delayed entry.
    """

    name: str
    times: Numbers
    survival: Numbers
    low: Numbers
    high: Numbers
    followed: Numbers
    censored: Numbers
    entered: Numbers | None = None

    def count_at_risk(self, time: float) -> int:
        """Count the patients under observation at a time in days."""
        at_risk = self.followed >= time
        return int((at_risk if self.entered is None else at_risk & (self.entered <= time)).sum())


@dataclass(frozen=True)
class Point:
    """Patients of similar predicted survival.

    Attributes:
        predicted: Mean predicted survival.
        observed: Observed survival by Kaplan-Meier.
        interval: Its 95 % confidence interval.
        patients: Number of patients.
    """

    predicted: float
    observed: float
    interval: tuple[float, float]
    patients: int


@dataclass(frozen=True)
class Panel:
    """Calibration at one horizon.

    Attributes:
        title: Title of the panel.
        points: Groups of patients.
        predicted: Predicted survival of each patient, drawn as ticks along the horizontal axis.
        line: Predicted and observed survival along a smooth curve, in ascending order; empty: none.
    """

    title: str
    points: Sequence[Point]
    predicted: Sequence[float]
    line: Sequence[tuple[float, float]] = ()


def save_kaplan_meier(path: Path, title: str, caption: str, curves: Sequence[GroupCurve]) -> None:
    """Draw the Kaplan-Meier curves of groups with the numbers at risk.

    Args:
        path: File to write.
        title: Title of the figure.
        caption: Text below the figure.
        curves: One for each group; at least one.
    """
    figure = Figure(figsize=(7.2, 5.4 + 0.2 * len(curves)), dpi=_DPI, facecolor="white", layout="constrained")
    heights = (5.0, 0.5 + 0.35 * len(curves))
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    last = max(float(curve.followed.max()) for curve in curves)
    for curve, colour in zip(curves, _CURVE_COLOURS, strict=False):
        _draw_curve(upper, curve, colour)
    upper.set(ylim=(0, 1.02), xlim=(0, last * 1.02), ylabel="Free of the event", title=title)
    upper.grid(alpha=0.25, linewidth=0.6)
    upper.legend(loc="best", frameon=False, fontsize=9)
    ticks = np.asarray(MaxNLocator(_TICKS).tick_values(0, last))
    _write_numbers(lower, curves, ticks[(ticks >= 0) & (ticks <= last * 1.02)])
    _hide_frame(upper, ("top", "right"))
    figure.supxlabel(_wrap(caption, _WRAP_AT), fontsize=8, color=_GREY)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def save_calibration(path: Path, title: str, caption: str, panels: Sequence[Panel]) -> None:
    """Draw observed against predicted survival.

    Args:
        path: File to write.
        title: Title of the figure.
        caption: Text below the figure.
        panels: One for each horizon; at least one.
    """
    columns = 2 if len(panels) == 4 else min(len(panels), _PANELS_A_ROW)
    rows = -(-len(panels) // columns)
    size = (_PANEL_INCHES * max(columns, 1.4), (_PANEL_INCHES + 0.6) * rows + 0.9)
    figure = Figure(figsize=size, dpi=_DPI, facecolor="white", layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel)
    for axis in axes[len(panels) :]:
        figure.delaxes(axis)
    axes[0].set_ylabel("Observed survival")
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(_wrap(caption, int(size[0] * 14)), fontsize=8, color=_GREY)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_curve(axis: Axes, curve: GroupCurve, colour: str) -> None:
    times, survival = (np.concatenate([[start], part]) for start, part in ((0.0, curve.times), (1.0, curve.survival)))
    low, high = (np.concatenate([[1.0], part]) for part in (curve.low, curve.high))
    axis.step(times, survival, where="post", color=colour, linewidth=1.8, label=curve.name)
    axis.fill_between(times, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
    marks = survival[np.searchsorted(times, curve.censored, side="right") - 1]
    axis.plot(curve.censored, marks, "|", color=colour, markersize=6, markeredgewidth=0.9)


def _write_numbers(axis: Axes, curves: Sequence[GroupCurve], ticks: Numbers) -> None:
    for row, (curve, colour) in enumerate(zip(curves, _CURVE_COLOURS, strict=False)):
        for tick in ticks:
            count = curve.count_at_risk(float(tick))
            axis.text(tick, row, str(count), ha="center", va="center", fontsize=9, color=colour)
    axis.set(ylim=(len(curves) - 0.5, -0.6), xlabel="Days", xticks=ticks)
    axis.set_yticks(range(len(curves)), [curve.name.partition(" (")[0] for curve in curves], fontsize=9)
    axis.set_title("Number at risk", fontsize=9, loc="left", color=_GREY)
    axis.tick_params(axis="y", length=0, pad=16)
    _hide_frame(axis, ("top", "right", "left"))


def _draw_panel(axis: Axes, panel: Panel) -> None:
    axis.plot([0, 1], [0, 1], color=_GREY, linewidth=0.9, linestyle="--", zorder=1)
    if panel.line:
        axis.plot(*zip(*panel.line, strict=True), color=_CURVE_COLOURS[1], linewidth=1.6, zorder=2)
    for point in panel.points:
        low, high = point.interval
        axis.plot([point.predicted] * 2, [low, high], color=_CURVE_COLOURS[0], linewidth=1.4, zorder=2)
        axis.plot(point.predicted, point.observed, "o", color=_CURVE_COLOURS[0], markersize=6, zorder=3)
    axis.plot(panel.predicted, np.full(len(panel.predicted), -0.03), "|", color=_GREY, markersize=5, alpha=0.5)
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.06, 1.02), xlabel="Predicted survival", aspect="equal")
    axis.set_title(panel.title, fontsize=9)
    axis.grid(alpha=0.25, linewidth=0.6)
    _hide_frame(axis, ("top", "right"))


def _hide_frame(axis: Axes, sides: Sequence[str]) -> None:
    for side in sides:
        axis.spines[side].set_visible(False)


def _wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))


def draw_study(study: Study, folder: Path) -> list[Path]:
    """Draw the risk groups and the calibration of the first method for the first seed.

    Returns:
        The files; a method without a risk cut-off has no figure of risk groups.
    """
    files = []
    first = study.methods[0]
    if study.risk_groups and study.risk_groups[0].groups:
        files.append(folder / KAPLAN_MEIER_NAME)
        title = f"Held-out patients by predicted risk: {first}"
        curves = [make_curve(group) for group in study.risk_groups[0].groups]
        save_kaplan_meier(files[-1], title, _caption_groups(study.risk_groups), curves)
    if study.calibration_groups:
        files.append(folder / CALIBRATION_NAME)
        seed = study.predictions[0].seed
        estimate = name_estimate(any(held.competing for held in study.predictions))
        caption = (
            f"Folds of seed {seed}. Points: groups of patients with similar predicted survival, observed survival by "
            f"{estimate} with 95 % confidence intervals. Ticks: individual patients. Dashed line: perfect "
            "calibration. The ideal slope is 1; below 1 predictions are too extreme, above 1 not extreme enough. "
            "Slopes compare patients within folds and are means over seeds."
        )
        panels = list(_list_panels(study, seed))
        save_calibration(files[-1], f"Calibration in held-out patients: {first}", caption, panels)
    return files


def make_curve(group: RiskGroup) -> GroupCurve:
    """Estimate the curve of a risk group, with its limits."""
    outcome = group.outcome
    times, survival, low, high = _estimate(outcome)
    events = int(outcome.event.sum())
    name = f"{group.name} risk ({len(outcome)} patients, {events} with the event)"
    return GroupCurve(name, times, survival, low, high, outcome.time, outcome.time[~outcome.ended], outcome.entry)


def name_estimate(competing: bool) -> str:
    """Name the estimate of observed survival, the probability of being free of the event."""
    return "Aalen-Johansen" if competing else "Kaplan-Meier"


def _estimate(outcome: Outcome) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Return times, event-free probability and its limits: Kaplan-Meier, or 1 - cumulative incidence."""
    if outcome.competing is not None:
        incidence = estimate_incidence(outcome)
        times, curves = incidence.times, np.stack([incidence.values, incidence.high, incidence.low])
        if len(times) and outcome.time.max() > times[-1]:  # no jump after the last event, but follow-up
            times, curves = np.append(times, outcome.time.max()), np.append(curves, curves[:, -1:], axis=1)
        return times, *(1 - curves)
    require_sksurv()
    from sksurv.nonparametric import kaplan_meier_estimator

    times, survival, (low, high) = kaplan_meier_estimator(
        outcome.event, outcome.time, outcome.entry, conf_type="log-log"
    )
    return times, survival, low, high


def _caption_groups(groups: tuple[RiskGroups, ...]) -> str:
    tests = ", ".join(f"{_format_p_value(split)} (seed {split.seed})" for split in groups)
    if any(group.outcome.competing is not None for group in groups[0].groups):
        tests += "; curves are 1 - cumulative incidence, and the test compares cause-specific hazards"
    ungrouped = f" {groups[0].ungrouped} patient(s) have no risk cut-off." if groups[0].ungrouped else ""
    return (
        f"Folds of seed {groups[0].seed}; groups by a risk cut-off from each fold's training patients. Shaded: 95 % "
        f"confidence intervals; ticks: censored patients. Log-rank test: {tests}. The p value is descriptive: models "
        f"of different folds share training patients, so it does not test a hypothesis.{ungrouped}"
    )


def _format_p_value(split: RiskGroups) -> str:
    if split.p is not None:
        return "p < 0.001" if split.p < 0.001 else f"p = {split.p:.3f}"
    if any(group.outcome.entry is not None for group in split.groups):
        return "no p value (delayed entry)"
    if len(split.groups) < len((LOW, HIGH)):
        return "no p value (only one group)" if split.groups else "no p value (no risk cut-off)"
    if not any(group.outcome.event.any() for group in split.groups):
        return "no p value (no events)"
    return "no p value (no event with both groups at risk)"


def _list_panels(study: Study, seed: int) -> Iterator[Panel]:
    first = study.methods[0]
    patients = [held for held in study.predictions if held.method == first and held.seed == seed]
    for index, (horizon, groups) in enumerate(study.calibration_groups.items()):
        calibration = study.calibration[first][index]
        points = [
            Point(group.predicted, group.observed, group.interval, group.patients)
            for group in groups
            if group.observed is not None and group.interval is not None
        ]
        title = f"{format_days(horizon)} days\nslope {format_slope(calibration.slope)}"
        yield Panel(title, points, [held.survival[index] for held in patients])
