"""Pictures of a prognosis: in come curves of groups and calibrated probabilities, out come PNG files.

Kaplan-Meier's curves with numbers at risk below; observed survival beside predicted survival, a panel a horizon.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from duplus_nnunet.reporting.colours import COLOURS

Numbers = NDArray[np.float64]

_CURVE_COLOURS = (COLOURS[2], COLOURS[0])  # blue and orange, apart for the colour-blind too
_GREY = "#606060"
_DPI, _TICKS = 150, 6
_PANELS_A_ROW, _PANEL_INCHES = 3, 3.3
_WRAP_AT = 105


@dataclass(frozen=True)
class GroupCurve:
    """Kaplan-Meier's curve of one group.

    Attributes:
        name: For the legend.
        times: Days, ascending, (T).
        survival: Share that is free of the event from each time on, (T).
        low: Lower end of its 95 % interval, (T).
        high: Upper end, (T).
        followed: Days to which each patient was followed, (N).
        censored: Those of patients without the event.
        entered: Days from which each patient was under observation, (N); None: all from the start.
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
        observed: Observed survival.
        interval: Its 95 % interval.
        patients: How many.
    """

    predicted: float
    observed: float
    interval: tuple[float, float]
    patients: int


@dataclass(frozen=True)
class Panel:
    """Calibration at one horizon.

    Attributes:
        title: Stands above it.
        points: Groups of patients.
        predicted: Predicted survival of each patient, for the strokes below.
    """

    title: str
    points: Sequence[Point]
    predicted: Sequence[float]


def save_kaplan_meier(path: Path, title: str, caption: str, curves: Sequence[GroupCurve]) -> None:
    """Write curves of groups, with numbers at risk below.

    Args:
        path: File to write.
        title: Stands above.
        caption: Stands below, in small print.
        curves: One a group; at least one.
    """
    figure = Figure(figsize=(7.2, 5.4 + 0.2 * len(curves)), dpi=_DPI, facecolor="white", layout="constrained")
    heights = (5.0, 0.5 + 0.35 * len(curves))
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    last = max(float(curve.followed.max()) for curve in curves)
    for curve, painted in zip(curves, _CURVE_COLOURS, strict=False):
        _draw_curve(upper, curve, painted)
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
    """Write observed beside predicted survival.

    Args:
        path: File to write.
        title: Stands above.
        caption: Stands below, in small print.
        panels: One a horizon; at least one.
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


def _draw_curve(axis: Axes, curve: GroupCurve, painted: str) -> None:
    times, survival = (np.concatenate([[start], part]) for start, part in ((0.0, curve.times), (1.0, curve.survival)))
    low, high = (np.concatenate([[1.0], part]) for part in (curve.low, curve.high))
    axis.step(times, survival, where="post", color=painted, linewidth=1.8, label=curve.name)
    axis.fill_between(times, low, high, step="post", color=painted, alpha=0.15, linewidth=0)
    marks = survival[np.searchsorted(times, curve.censored, side="right") - 1]
    axis.plot(curve.censored, marks, "|", color=painted, markersize=6, markeredgewidth=0.9)


def _write_numbers(axis: Axes, curves: Sequence[GroupCurve], ticks: Numbers) -> None:
    for row, (curve, painted) in enumerate(zip(curves, _CURVE_COLOURS, strict=False)):
        for tick in ticks:
            count = curve.count_at_risk(float(tick))
            axis.text(tick, row, str(count), ha="center", va="center", fontsize=9, color=painted)
    axis.set(ylim=(len(curves) - 0.5, -0.6), xlabel="Days", xticks=ticks)
    axis.set_yticks(range(len(curves)), [curve.name.partition(" (")[0] for curve in curves], fontsize=9)
    axis.set_title("Number at risk", fontsize=9, loc="left", color=_GREY)
    axis.tick_params(axis="y", length=0, pad=16)
    _hide_frame(axis, ("top", "right", "left"))


def _draw_panel(axis: Axes, panel: Panel) -> None:
    axis.plot([0, 1], [0, 1], color=_GREY, linewidth=0.9, linestyle="--", zorder=1)
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
