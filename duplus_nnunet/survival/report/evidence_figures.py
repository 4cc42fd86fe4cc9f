"""Draws decision curves, hazard ratios and permutation importance as PNG files."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from duplus_nnunet.reporting.colours import BLUE, COLOURS
from duplus_nnunet.survival.evaluation.decision import DecisionCurve
from duplus_nnunet.survival.evaluation.hazard_ratios import HazardRatio
from duplus_nnunet.survival.evaluation.importance import Importance
from duplus_nnunet.survival.report.text import format_days

DECISION_NAME, FOREST_NAME = "decision_curves.png", "hazard_ratios.png"
IMPORTANCE_FIGURE = "permutation_importance.png"
_GREY, _DPI = "#606060", 150
_LOWEST = -0.05
# Round numbers on a logarithmic axis, from coarse to fine, and how many are to be on it.
_STEPS: tuple[tuple[float, ...], ...] = (
    (1,), (1, 3), (1, 2, 5), (1, 1.25, 1.5, 2, 3, 5, 7), tuple(step / 10 for step in range(10, 100)),
)  # fmt: skip
_LEAST_TICKS, _MOST_TICKS = 4, 8


def save_decision_curves(path: Path, curves: Sequence[DecisionCurve]) -> None:
    """Draw the decision curves of all methods, a panel for each horizon."""
    horizons = sorted({curve.horizon for curve in curves})
    figure = Figure(figsize=(4.0 * len(horizons), 4.2), dpi=_DPI, facecolor="white", layout="constrained")
    for axis, horizon in zip(figure.subplots(1, len(horizons), squeeze=False)[0], horizons, strict=True):
        own = [curve for curve in curves if curve.horizon == horizon]
        axis.plot(own[0].thresholds, own[0].treat_all, color=_GREY, linewidth=1.0, label="treat all")
        axis.axhline(0, color="black", linewidth=1.0, label="treat none")
        for number, curve in enumerate(own):
            colour = COLOURS[number % len(COLOURS)]
            axis.plot(curve.thresholds, curve.net_benefit, color=colour, linewidth=1.6, label=curve.method)
        values = np.concatenate([curve.net_benefit for curve in own])
        top = float(np.nanmax(values, initial=0.05))
        axis.set(xlim=(0, 1), ylim=(_LOWEST, top * 1.15), xlabel="Threshold of predicted risk")
        axis.set_title(f"{format_days(horizon)} days", fontsize=10)
        axis.grid(alpha=0.25, linewidth=0.6)
    figure.axes[0].set_ylabel("Net benefit")
    figure.axes[-1].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def choose_ticks(low: float, high: float) -> list[float]:
    """Choose the ticks of a logarithmic axis: the coarsest set of round numbers of which four or more are on it.

    Example:
        >>> choose_ticks(0.3, 6), choose_ticks(0.85, 2.1)
        ([0.5, 1.0, 2.0, 5.0], [1.0, 1.25, 1.5, 2.0])
    """
    ticks: list[float] = []
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _STEPS:
        ticks = [tick for power in powers for step in steps if low <= (tick := round(step * 10.0**power, 12)) <= high]
        if len(ticks) >= _LEAST_TICKS:
            break
    return ticks[:: math.ceil(len(ticks) / _MOST_TICKS)] if ticks else []


def save_forest_plot(path: Path, ratios: Sequence[HazardRatio]) -> None:
    """Draw hazard ratios with their 95 % confidence intervals on a logarithmic axis; at least one."""
    figure = Figure(figsize=(6.5, 1.2 + 0.32 * len(ratios)), dpi=_DPI, facecolor="white", layout="constrained")
    axis = figure.subplots()
    axis.axvline(1, color=_GREY, linewidth=0.9, linestyle="--")
    for row, ratio in enumerate(ratios):
        if not math.isnan(ratio.ratio):
            axis.plot([ratio.low, ratio.high], [row, row], color=BLUE, linewidth=1.5)
            axis.plot(ratio.ratio, row, "s", color=BLUE, markersize=5)
    axis.set_yticks(range(len(ratios)), [_name(ratio) for ratio in ratios], fontsize=9)
    axis.set(ylim=(len(ratios) - 0.5, -0.5), xlabel="Hazard ratio, 95 % confidence interval")
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(choose_ticks(*axis.get_xlim())))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.grid(alpha=0.25, linewidth=0.6, axis="x")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def save_importance(path: Path, importances: Sequence[Importance]) -> None:
    """Draw permutation importance with its 95 % confidence intervals; at least one column."""
    figure = Figure(figsize=(6.5, 1.2 + 0.32 * len(importances)), dpi=_DPI, facecolor="white", layout="constrained")
    axis = figure.subplots()
    for row, importance in enumerate(importances):
        if importance.interval is not None:
            axis.plot(importance.interval, [row, row], color=BLUE, linewidth=1.5)
        axis.plot(importance.drop, row, "s", color=BLUE, markersize=5)
    axis.set_yticks(range(len(importances)), [importance.input for importance in importances], fontsize=9)
    axis.set(ylim=(len(importances) - 0.5, -0.5), xlabel="Drop of Harrell's C when shuffled, 95 % confidence interval")
    axis.axvline(0, color=_GREY, linewidth=0.9, linestyle="--")
    axis.grid(alpha=0.25, linewidth=0.6, axis="x")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _name(ratio: HazardRatio) -> str:
    unit = f" (per {ratio.per})" if ratio.per else ""
    return f"{ratio.name}{unit}" if not math.isnan(ratio.ratio) else f"{ratio.name}{unit}: no finite estimate"
