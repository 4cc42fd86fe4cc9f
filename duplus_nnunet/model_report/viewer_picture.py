"""Draws a viewer as a picture: one slice of each of its images, for paper and for readers without JavaScript."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from duplus_nnunet.model_report.blocks import Mask, ViewedCase, Viewer
from duplus_nnunet.model_report.packing import (
    TargetStyle,
    choose_start,
    list_masks,
    list_styles,
    measure_areas,
    to_grey,
)
from duplus_nnunet.reporting.colours import to_line_style

# Targets that are chosen at first; with more, outlines hide one another.
_ALL_CHOSEN, _FIRST_CHOSEN = 6, 4
_INCHES, _COLUMNS, _WRAP_AT = 3.4, 3, 58
_OPACITY = 0.3
_LINE_INCHES = 0.19


def list_chosen(viewer: Viewer) -> list[str]:
    """List the targets that are shown at first: all of a few, else the first ones of each image."""
    names = [style.name for style in list_styles(viewer)]
    if len(names) <= _ALL_CHOSEN:
        return names
    first = {mask.target for case in viewer.cases for mask in case.masks[:_FIRST_CHOSEN]}
    return [name for name in names if name in first]


def describe_mask(mask: Mask) -> str:
    """Describe what is known of a target in an image, in a few words."""
    parts = [mask.note] if mask.note else []
    if mask.prediction is None:
        parts.append("not predicted")
    elif not mask.prediction.any():
        parts.append("not found")
    if mask.truth is None:
        parts.append("not annotated")
    elif not mask.truth.any():
        parts.append("annotated as absent")
    return ", ".join(parts)


def draw_viewer(viewer: Viewer) -> Figure:
    """Draw the slice of each image that shows most of the targets chosen at first.

    Predictions are filled; annotated outlines have white dashes.
    """
    styles = {style.name: style for style in list_styles(viewer) if style.name in list_chosen(viewer)}
    columns = max(1, min(_COLUMNS, len(viewer.cases)))
    rows = max(1, -(-len(viewer.cases) // columns))
    texts = [_describe_case(case, styles) for case in viewer.cases]
    below = _LINE_INCHES * max((text.count("\n") + 2 for text in texts), default=1)
    figure = Figure(
        figsize=(columns * _INCHES, rows * (_INCHES + below) + 0.5), facecolor="white", layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in axes[len(viewer.cases) :]:
        panel.set_axis_off()
    for panel, case, text in zip(axes, viewer.cases, texts, strict=False):
        _draw_case(panel, case, styles)
        panel.set_xlabel(text, fontsize=7, loc="left", parse_math=False)
    _draw_legend(figure, list(styles.values()))
    return figure


def describe_viewer(viewer: Viewer) -> str:
    """Describe a viewer's picture for readers who do not see it."""
    cases = "; ".join(
        f"{case.title}, context prompt {case.context_prompt!r}: "
        + ", ".join(f"{mask.target} ({describe_mask(mask) or 'predicted'})" for mask in case.masks)
        for case in viewer.cases
    )
    return f"One axial slice of {len(viewer.cases)} image(s) with outlines of the targets. {cases}"


def _describe_case(case: ViewedCase, styles: Mapping[str, TargetStyle]) -> str:
    lines = textwrap.wrap(f"Context prompt: {case.context_prompt}", _WRAP_AT)
    for mask in case.masks:
        if mask.target in styles:
            lines += textwrap.wrap(f"{mask.target}: {mask.prompt}. {describe_mask(mask)}", _WRAP_AT)
    return "\n".join(lines)


def _draw_case(panel: Axes, case: ViewedCase, styles: Mapping[str, TargetStyle]) -> None:
    shown = [mask for mask in case.masks if mask.target in styles]
    volumes = [volume for mask in shown for volume in (mask.prediction, mask.truth) if volume is not None]
    level = choose_start([measure_areas(volume) for volume in volumes or list_masks(case)], len(case.image))
    aspect = case.spacing[1] / case.spacing[2]
    panel.imshow(to_grey(case, level), cmap="gray", vmin=0, vmax=255, aspect=aspect, interpolation="bilinear")
    for mask in shown:
        style = styles[mask.target]
        if mask.prediction is not None and mask.prediction[level].any():
            values = _pad(mask.prediction[level])
            panel.contourf(*values, levels=[0.5, 1.5], colors=[style.colour], alpha=_OPACITY)
            line = to_line_style(style.dashes)
            panel.contour(*values, levels=[0.5], colors=[style.colour], linewidths=1.4, linestyles=[line])
        if mask.truth is not None and mask.truth[level].any():
            values = _pad(mask.truth[level])
            panel.contour(*values, levels=[0.5], colors=[style.colour], linewidths=1.4)
            panel.contour(*values, levels=[0.5], colors=["white"], linewidths=1.4, linestyles=[(0, (2, 2))])
    number = (case.levels[level] if case.levels else level) + 1
    panel.set_title(
        f"{case.title}, slice {number} of {case.depth or len(case.image)}", fontsize=8, parse_math=False, wrap=True
    )
    panel.set_xlim(-0.5, case.image.shape[2] - 0.5)
    panel.set_ylim(case.image.shape[1] - 0.5, -0.5)
    panel.set_xticks([])
    panel.set_yticks([])
    for side, x in (("R", 0.04), ("L", 0.96)):
        panel.annotate(side, (x, 0.5), xycoords="axes fraction", color="white", ha="center", va="center", fontsize=8)


def _pad(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Surround a slice of a mask by an empty border, so that outlines at the edge are closed; with its coordinates."""
    closed = np.pad(mask, 1).astype(np.float32)
    return np.arange(closed.shape[1]) - 1, np.arange(closed.shape[0]) - 1, closed


def _draw_legend(figure: Figure, styles: Sequence[TargetStyle]) -> None:
    if not styles:
        return
    lines = [Line2D([], [], color=style.colour, linestyle=to_line_style(style.dashes)) for style in styles]
    legend = figure.legend(
        lines, [style.name for style in styles], loc="outside lower center", ncols=min(3, len(styles)), fontsize=8,
        frameon=False, handlelength=3.4,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
