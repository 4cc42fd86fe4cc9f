"""Draws preview pictures of predictions as PNG files (`--preview`).

Each target is shown in three slices with the outlines of all targets; a picture holds up to twelve targets.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from duplus_nnunet.files import open_new_file
from duplus_nnunet.outputs.answer import UNSEEN_MARK, CaseAnswer, TargetAnswer
from duplus_nnunet.outputs.naming import find_case_folder
from duplus_nnunet.outputs.planes import (
    PLANES,
    OrientedCase,
    OrientedTarget,
    Plane,
    View,
    locate_slices,
    orient_case,
    view_image,
    view_target,
)
from duplus_nnunet.outputs.statistics import check_image
from duplus_nnunet.reporting.colours import SOLID, Dashes, choose_dashes, colour, to_line_style

TARGETS_PER_PICTURE = 12

_DPI = 130
_PANEL_INCHES = 2.3
_GAP_INCHES = 0.3
_HEADER_INCHES = 0.55
_LINE_INCHES = 0.22
_SINGLE_COLUMN_TARGETS = 3  # more targets are arranged in two columns
_WRAP_AT = 105  # characters per column
_MAX_NAME_LENGTH = 40
_INK, _PAPER = "#e6e6e6", "black"


def write_preview(answer: CaseAnswer, image: NDArray[Any], folder: Path) -> tuple[Path, ...]:
    """Write FOLDER/CASE_preview.png, and CASE_preview_2.png and so on if there are more than twelve targets.

    The patient's right is on the left. Letters mark Right, Left, Anterior, Posterior, Head and Foot, unless the
    orientation of the patient is unknown. The intensity window is adapted to the surroundings of each target, and given
    as level and width. Each slice is marked by its index along an axis of the array, from 0, and its world coordinate.
    No two outlines on a picture have both colour and line style in common, as long as it shows at most twelve targets.

    Args:
        answer: Prediction of the case.
        image: The image as nnU-Net's reader returns it, (C, D, H, W); the first channel is shown.
        folder: Folder of the predictions.

    Returns:
        The written files.

    Raises:
        DataError: The image is not on the prediction's grid.
    """
    check_image(answer, image)
    case = orient_case(answer, image)
    starts = range(0, len(case.parts), TARGETS_PER_PICTURE)
    pages = [case.parts[start : start + TARGETS_PER_PICTURE] for start in starts] or [()]
    stem, files = find_case_folder(folder, answer.case, answer.file_name), []
    for number, page in enumerate(pages, start=1):
        file = stem.with_name(f"{stem.name}_preview{f'_{number}' if number > 1 else ''}.png")
        figure = _draw_page(answer, case, page, f"{number} of {len(pages)}" if len(pages) > 1 else "")
        with open_new_file(file) as new:
            figure.savefig(new, dpi=_DPI)
        files.append(file)
    return tuple(files)


def _draw_page(answer: CaseAnswer, case: OrientedCase, page: Sequence[OrientedTarget], number: str) -> Figure:
    columns = 1 if len(page) <= _SINGLE_COLUMN_TARGETS else 2
    rows = max(1, -(-len(page) // columns))
    views = [view_target(case, part) for part in page]
    header, shown = _write_header(answer, case, number, columns), _list_visible(case, views)
    lines = -(-len(shown) // (2 * columns))
    below = _LINE_INCHES * lines + 0.1
    above = _HEADER_INCHES + _LINE_INCHES * header.count("\n")
    width, height = 3 * columns * (_PANEL_INCHES + 0.05), above + rows * (_PANEL_INCHES + _GAP_INCHES) + below
    figure = Figure(figsize=(width, height), facecolor=_PAPER)
    figure.text(0.01, 1 - 0.08 / height, header, color=_INK, fontsize=9, va="top", parse_math=False, linespacing=1.4)
    grid = figure.add_gridspec(
        rows, columns, left=0.01, right=0.99, bottom=below / height, top=1 - above / height,
        wspace=0.03, hspace=_GAP_INCHES / _PANEL_INCHES,
    )  # fmt: skip
    dashes = choose_dashes(target.value for target in (*(part.target for part in page), *shown))
    for index, (part, view) in enumerate(zip(page or (None,), views or (view_image(case),), strict=True)):
        block = grid[divmod(index, columns)].subgridspec(1, len(PLANES), wspace=0.03)
        _draw_target([figure.add_subplot(block[0, across]) for across in range(len(PLANES))], case, part, view, dashes)
    if shown:
        _draw_legend(figure, shown, -(-len(shown) // lines), dashes)
    return figure


def _write_header(answer: CaseAnswer, case: OrientedCase, number: str, columns: int) -> str:
    title = "   ".join(filter(None, (answer.case, answer.context, number)))
    lines = [title] if case.oriented else [title, "Unknown patient orientation: left and right are not marked."]
    present = {part.target.name for part in case.parts}
    absent = [target.name for target in answer.targets if target.name not in present]
    if absent:
        lines.append("Not found: " + ", ".join(absent))
    unseen = [target.name for target in answer.targets if not target.seen]
    if unseen:
        lines.append("Not seen in training: " + ", ".join(unseen))
    wrapped = [text for line in lines for text in textwrap.wrap(line, _WRAP_AT * columns)]
    return "\n".join(map(_replace_missing_glyphs, wrapped))


def _list_visible(case: OrientedCase, views: Sequence[View]) -> list[TargetAnswer]:
    """List the targets whose outline is visible in a slice."""
    return [
        part.target
        for part in case.parts
        if any(part.cut(plane, view.levels[plane.across]) for view in views for plane in PLANES)
    ]


def _draw_target(
    panels: Sequence[Axes],
    case: OrientedCase,
    part: OrientedTarget | None,
    view: View,
    dashes: Mapping[int, Dashes],
) -> None:
    for panel, plane, position in zip(panels, PLANES, locate_slices(case, view), strict=True):
        _draw_plane(panel, case, view, plane)
        _draw_corner_text(panel, position.text)
        for other in case.parts:
            _draw_outline(panel, other, plane, view, dashes.get(other.target.value, SOLID), is_main=other is part)
    if part:
        millilitres = part.mask.sum() * np.prod(case.spacing) / 1000
        presence = "" if part.target.presence is None else f"   present {part.target.presence:.0%}"
        text = f"{_shorten(part.target.name)}{_mark(part.target)}   {millilitres:.3g} ml{presence}"
        panels[0].set_title(text, color=colour(part.target.value), fontsize=9, loc="left", pad=4, parse_math=False)
    panels[-1].set_title(_describe_window(view), color=_INK, fontsize=7, loc="right", pad=4)


def _describe_window(view: View) -> str:
    dark, bright = view.window
    level, width = (float(f"{value:.3g}") for value in ((dark + bright) / 2, bright - dark))
    return f"level {level:g}, width {width:g}"


def _draw_corner_text(panel: Axes, text: str) -> None:
    panel.text(
        0.98, 0.09, text, transform=panel.transAxes, color="white", fontsize=6, ha="right", va="bottom",
        bbox={"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 1.0},
    )  # fmt: skip


def _draw_plane(panel: Axes, case: OrientedCase, view: View, plane: Plane) -> None:
    dark, bright = view.window
    panel.imshow(
        case.image.take(view.levels[plane.across], axis=plane.across),
        cmap="gray",
        vmin=dark,
        vmax=bright,
        interpolation="bicubic",
        aspect=case.spacing[plane.rows] / case.spacing[plane.columns],
    )
    panel.set_xlim(*view.field[plane.columns])
    rows = view.field[plane.rows]
    panel.set_ylim(*(rows if plane.upwards else rows[::-1]))
    panel.set_axis_off()
    _draw_scale(panel, case, view, plane)
    if case.oriented:
        positions = ((0.04, 0.5), (0.96, 0.5), (0.5, 0.96), (0.5, 0.04))
        for letter, position in zip(plane.letters, positions, strict=True):
            panel.annotate(
                letter, position, xycoords="axes fraction", color="white", ha="center", va="center", fontsize=8,
                bbox={"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 1.2},
            )  # fmt: skip


def _draw_scale(panel: Axes, case: OrientedCase, view: View, plane: Plane) -> None:
    """Draw a scale bar of 5 cm in the lower left corner, if it fits."""
    first, last = view.field[plane.columns]
    length, inset = 50 / case.spacing[plane.columns], 0.03 * (last - first)
    if length < (last - first) / 2:
        bottom, top = view.field[plane.rows] if plane.upwards else view.field[plane.rows][::-1]
        height = bottom + 0.03 * (top - bottom)
        panel.plot([first + inset, first + inset + length], [height, height], color="white", linewidth=1.2)
        panel.text(first + inset, height, " 5 cm", color="white", fontsize=6, va="bottom")


def _draw_outline(
    panel: Axes, part: OrientedTarget, plane: Plane, view: View, dashes: Dashes, *, is_main: bool
) -> None:
    section = part.cut(plane, view.levels[plane.across])
    if section is None:
        return
    mask, row, column = section
    closed = np.pad(mask, 1).astype(np.float32)
    panel.contour(
        np.arange(closed.shape[1]) + column - 1,
        np.arange(closed.shape[0]) + row - 1,
        closed,
        levels=[0.5],
        colors=[colour(part.target.value)],
        linewidths=1.5 if is_main else 0.8,
        linestyles=[to_line_style(dashes)],
    )


def _draw_legend(figure: Figure, shown: Sequence[TargetAnswer], columns: int, dashes: Mapping[int, Dashes]) -> None:
    lines = [Line2D([], [], color=colour(target.value), ls=to_line_style(dashes[target.value])) for target in shown]
    legend = figure.legend(
        lines,
        [" " + _shorten(target.name) + _mark(target) for target in shown],
        loc="lower center",
        ncols=columns,
        frameon=False,
        fontsize=8,
        labelcolor=_INK,
        borderaxespad=0.2,
        labelspacing=0.3,
        handlelength=3.6,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _mark(target: TargetAnswer) -> str:
    return "" if target.seen else UNSEEN_MARK


def _shorten(name: str) -> str:
    text = _replace_missing_glyphs(" ".join(name.split()))
    return text if len(text) <= _MAX_NAME_LENGTH else text[: _MAX_NAME_LENGTH - 1] + "…"


def _replace_missing_glyphs(text: str) -> str:
    """Replace characters that the font lacks by question marks; each would be a warning."""
    font = get_font(findfont(FontProperties()))
    return "".join(letter if font.get_char_index(ord(letter)) else "?" for letter in text)
