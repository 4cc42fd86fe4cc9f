"""Draws the bars, lines and intervals of a report: readable on a phone, with nothing told by colour alone."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from duplus_nnunet.reporting.colours import BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILION

# In inches and points: a drawing as wide as a phone's screen keeps its letters at about their size.
WIDTH = 5.2
FONT = 10.5
GREY = "#555555"
# The palette of reporting.colours without yellow, which is hard to see on white.
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY_BLUE, "#000000")
_LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (8, 2)), (0, (1, 3)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_HATCHES = ("", "///", "...", "xxx", "\\\\\\", "ooo", "---")
# A chart shows as many rows or lines; the others stand in its CSV file.
MOST_ROWS = 30
MOST_LINES = 12
_ROW_INCHES = 0.29
# Letters of a line of a row's name.
_LABEL = 22


@dataclass(frozen=True)
class Look:
    """How a series is drawn: no two of the first 49 agree in colour and in line, or in colour and marker."""

    colour: str
    line: Any
    marker: str
    hatch: str


@dataclass(frozen=True)
class Line:
    """A line of N points.

    Attributes:
        name: Its name in the legend.
        y: Heights, (N); NaN leaves a gap.
        x: Places along the horizontal axis, (N); empty: 1, 2, ...
    """

    name: str
    y: Sequence[float]
    x: Sequence[float] = ()


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Attributes:
        name: Name of the row.
        value: The value; NaN: it is not defined, and the row is marked so.
        interval: Low and high end; None if there is none.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None


def choose_look(number: int) -> Look:
    """Choose the look of a series by its number from 0."""
    turn = number // len(COLOURS)
    place = number + turn
    return Look(
        COLOURS[number % len(COLOURS)],
        _LINES[place % len(_LINES)],
        _MARKERS[(number + 3 * turn) % len(_MARKERS)],
        _HATCHES[place % len(_HATCHES)],
    )


def make_figure(height: float) -> Figure:
    """Make an empty drawing of a height in inches."""
    return Figure(figsize=(WIDTH, height), facecolor="white", layout="constrained")


def style_axes(axes: Axes) -> None:
    """Give axes letters that are readable on a phone, and a light grid."""
    axes.tick_params(labelsize=FONT - 1)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(FONT)
    axes.title.set_fontsize(FONT)
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def shorten(name: str, width: int = 28) -> str:
    """Shorten a name for a label."""
    return textwrap.shorten(name, width, placeholder="…") if len(name) > width and " " in name else name[:width]


def escape(text: str) -> str:
    """Escape what Matplotlib would read as a formula."""
    return text.replace("$", r"\$")


def label_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a drawing, from top to bottom; long names are broken into two lines."""
    lines = [textwrap.wrap(name, _LABEL) or [name] for name in names]
    texts = [
        escape("\n".join([*parts[:1], shorten(" ".join(parts[1:]), _LABEL)] if parts[1:] else parts)) for parts in lines
    ]
    axes.set_yticks(range(len(names)), texts)
    axes.tick_params(axis="y", labelsize=FONT - (2 if any(parts[1:] for parts in lines) else 1))


def draw_legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """Draw the legend below the axes, if there is more than one series."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        columns = 1 if max(map(len, labels)) > 26 else columns
        figure.legend(
            handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=FONT - 1.5,
            handlelength=2.6,
        )  # fmt: skip


def draw_lines(axes: Axes, lines: Iterable[Line], marked: bool = False) -> None:
    """Draw lines, each with a look of its own.

    Args:
        axes: Where.
        lines: The lines.
        marked: Whether each point has a marker; else points that stand alone have one.
    """
    for number, line in enumerate(lines):
        look, x = choose_look(number), line.x or range(1, len(line.y) + 1)
        single = sum(not math.isnan(value) for value in line.y) < 3
        axes.plot(
            x, line.y, color=look.colour, linestyle=look.line, linewidth=1.7, label=escape(shorten(line.name, 40)),
            marker=look.marker if marked or single else None, markersize=4.5,
        )  # fmt: skip


def draw_estimates(title: str, estimates: Sequence[Estimate], bounds: tuple[float, float] | None = None) -> Figure:
    """Draw values with intervals, one row each, from top to bottom.

    Args:
        title: Label of the horizontal axis.
        estimates: The rows; more than `MOST_ROWS` are cut.
        bounds: Ends of the horizontal axis; None: those of the values.
    """
    shown = list(estimates)[:MOST_ROWS]
    figure = make_figure(1.0 + _ROW_INCHES * max(3, len(shown)))
    axes = figure.subplots()
    for row, estimate in enumerate(shown):
        if estimate.interval is not None:
            axes.plot(estimate.interval, [row, row], color=BLUE, linewidth=1.8, solid_capstyle="butt")
        if math.isnan(estimate.value):
            axes.text(0.01, row, "not defined", transform=axes.get_yaxis_transform(), va="center", fontsize=FONT - 1.5)
        else:
            axes.plot(estimate.value, row, "o", color=BLUE, markersize=5.5)
    axes.set(ylim=(len(shown) - 0.5, -0.5), xlabel=title)
    if bounds is not None:
        axes.set_xlim(bounds)
    style_axes(axes)
    label_rows(axes, [estimate.name for estimate in shown])
    return figure


def draw_stacked_bars(title: str, rows: Mapping[str, Mapping[str, float]], parts: Sequence[str]) -> Figure:
    """Draw horizontal bars of parts, the first row on top, with the total beside each bar.

    Args:
        title: Label of the horizontal axis.
        rows: Size of each part by row; more than `MOST_ROWS` rows are cut.
        parts: Names of all parts, in the order in which they are stacked.
    """
    names = list(rows)[:MOST_ROWS]
    figure = make_figure(1.3 + _ROW_INCHES * max(3, len(names)) + 0.16 * len(parts))
    axes = figure.subplots()
    starts = dict.fromkeys(names, 0.0)
    for number, part in enumerate(parts):
        look, sizes = choose_look(number), [rows[name].get(part, 0) for name in names]
        axes.barh(
            range(len(names)), sizes, 0.72, left=list(starts.values()), color=look.colour, hatch=look.hatch,
            edgecolor="white", linewidth=0.5, label=escape(shorten(part, 40)),
        )  # fmt: skip
        starts = {name: starts[name] + size for name, size in zip(names, sizes, strict=True)}
    for row, name in enumerate(names):
        axes.text(starts[name], row, f" {starts[name]:g}", va="center", fontsize=FONT - 1.5)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel=title, xlim=(0, (max(starts.values(), default=0) or 1) * 1.15))
    style_axes(axes)
    label_rows(axes, names)
    axes.grid(axis="y", visible=False)
    draw_legend(figure, axes)
    return figure


def describe_cut(total: int, shown: int = MOST_ROWS, things: str = "rows") -> str:
    """Say how many of a chart's rows stand in its CSV file only; empty if all are shown."""
    return f" {total - shown} more {things} are in the CSV file." if total > shown else ""
