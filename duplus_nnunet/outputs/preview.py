"""Pictures of what was found, as `--preview` asks for: in come an answer and its image, out come PNGs.

Of each target three slices with the outlines of all; twelve targets a picture, and as many pictures as that takes.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from duplus_nnunet.outputs.answer import CaseAnswer, TargetAnswer
from duplus_nnunet.outputs.files import open_new_file
from duplus_nnunet.outputs.naming import find_case_folder
from duplus_nnunet.outputs.planes import PLANES, Plane, Scene, TurnedTarget, View, look_at, look_at_all, set_scene
from duplus_nnunet.outputs.statistics import check_image
from duplus_nnunet.reporting.colours import COLOURS, colour

A_PICTURE = 12

Style = Literal["solid", "dashed", "dotted", "dashdot"]

_DPI = 130
_PANEL_INCHES = 2.3
_GAP_INCHES = 0.3
_HEAD_INCHES = 0.55
_LINE_INCHES = 0.22
_BLOCKS_ABOVE = 3  # targets in one column; of more, two stand side by side
_WRAP_AT = 105  # letters to a column of blocks
_NAME_AT = 40
_STYLES: tuple[Style, ...] = ("solid", "dashed", "dotted", "dashdot")
_INK, _PAPER = "#e6e6e6", "black"


def write_preview(answer: CaseAnswer, image: NDArray[Any], folder: Path) -> tuple[Path, ...]:
    """Write FOLDER/CASE_preview.png, and CASE_preview_2.png and so on if there are more than twelve targets.

    The patient's right is on the left. Letters say where Right, Left, Anterior, Posterior, Head and Foot are; there are
    none if the image's file does not tell. Grey values are spread over what is around each target.

    Args:
        answer: What was found.
        image: The image as nnU-Net's reader gives it, (C, D, H, W); the first channel is shown.
        folder: Where the predictions stand.

    Returns:
        The files.

    Raises:
        DataError: The image is not on the answer's grid, or the case's name gives no file name.
    """
    check_image(answer, image)
    scene = set_scene(answer, image)
    pages = [scene.parts[start : start + A_PICTURE] for start in range(0, len(scene.parts), A_PICTURE)] or [()]
    stem, files = find_case_folder(folder, answer.case), []
    for number, page in enumerate(pages, start=1):
        file = stem.with_name(f"{stem.name}_preview{f'_{number}' if number > 1 else ''}.png")
        figure = _draw_page(answer, scene, page, f"{number} of {len(pages)}" if len(pages) > 1 else "")
        with open_new_file(file) as new:
            figure.savefig(new, dpi=_DPI)
        files.append(file)
    return tuple(files)


def _draw_page(answer: CaseAnswer, scene: Scene, page: Sequence[TurnedTarget], number: str) -> Figure:
    columns = 1 if len(page) <= _BLOCKS_ABOVE else 2
    rows = max(1, -(-len(page) // columns))
    views = [look_at(scene, part) for part in page]
    head, shown = _write_head(answer, scene, number, columns), _list_seen(scene, views)
    lines = -(-len(shown) // (2 * columns))
    below = _LINE_INCHES * lines + 0.1
    above = _HEAD_INCHES + _LINE_INCHES * head.count("\n")
    width, height = 3 * columns * (_PANEL_INCHES + 0.05), above + rows * (_PANEL_INCHES + _GAP_INCHES) + below
    figure = Figure(figsize=(width, height), facecolor=_PAPER)
    figure.text(0.01, 1 - 0.08 / height, head, color=_INK, fontsize=9, va="top", parse_math=False, linespacing=1.4)
    grid = figure.add_gridspec(
        rows, columns, left=0.01, right=0.99, bottom=below / height, top=1 - above / height,
        wspace=0.03, hspace=_GAP_INCHES / _PANEL_INCHES,
    )  # fmt: skip
    for place, (part, view) in enumerate(zip(page or (None,), views or (look_at_all(scene),), strict=True)):
        block = grid[divmod(place, columns)].subgridspec(1, len(PLANES), wspace=0.03)
        _draw_target([figure.add_subplot(block[0, across]) for across in range(len(PLANES))], scene, part, view)
    if shown:
        _draw_legend(figure, shown, -(-len(shown) // lines))
    return figure


def _write_head(answer: CaseAnswer, scene: Scene, number: str, columns: int) -> str:
    title = "   ".join(filter(None, (answer.case, answer.context, number)))
    lines = [title] if scene.oriented else [title, "The file does not say how the patient lies: sides are not known."]
    found = {part.target.name for part in scene.parts}
    absent = [target.name for target in answer.targets if target.name not in found]
    if absent:
        lines.append("Not found: " + ", ".join(absent))
    return "\n".join(_replace_unknown(text) for line in lines for text in textwrap.wrap(line, _WRAP_AT * columns))


def _list_seen(scene: Scene, views: Sequence[View]) -> list[TargetAnswer]:
    """List the targets of which an outline is in a picture."""
    return [
        part.target
        for part in scene.parts
        if any(part.cut(plane, view.levels[plane.across]) for view in views for plane in PLANES)
    ]


def _draw_target(panels: Sequence[Axes], scene: Scene, part: TurnedTarget | None, view: View) -> None:
    for panel, plane in zip(panels, PLANES, strict=True):
        _draw_plane(panel, scene, view, plane)
        for other in scene.parts:
            _draw_outline(panel, other, plane, view, is_main=other is part)
    if part:
        millilitres = part.mask.sum() * np.prod(scene.spacing) / 1000
        said = "" if part.target.presence is None else f"   present {part.target.presence:.0%}"
        text = f"{_shorten(part.target.name)}   {millilitres:.3g} ml{said}"
        panels[0].set_title(text, color=colour(part.target.value), fontsize=9, loc="left", pad=4, parse_math=False)


def _draw_plane(panel: Axes, scene: Scene, view: View, plane: Plane) -> None:
    dark, bright = view.window
    panel.imshow(
        scene.image.take(view.levels[plane.across], axis=plane.across),
        cmap="gray",
        vmin=dark,
        vmax=bright,
        interpolation="bicubic",
        aspect=scene.spacing[plane.rows] / scene.spacing[plane.columns],
    )
    panel.set_xlim(*view.field[plane.columns])
    rows = view.field[plane.rows]
    panel.set_ylim(*(rows if plane.upwards else rows[::-1]))
    panel.set_axis_off()
    _draw_scale(panel, scene, view, plane)
    if scene.oriented:
        places = ((0.04, 0.5), (0.96, 0.5), (0.5, 0.96), (0.5, 0.04))
        for letter, place in zip(plane.letters, places, strict=True):
            panel.annotate(
                letter, place, xycoords="axes fraction", color="white", ha="center", va="center", fontsize=8,
                bbox={"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 1.2},
            )  # fmt: skip


def _draw_scale(panel: Axes, scene: Scene, view: View, plane: Plane) -> None:
    """Draw a line of 5 cm at the left of the lower edge, where there is room for it."""
    first, last = view.field[plane.columns]
    length, inset = 50 / scene.spacing[plane.columns], 0.03 * (last - first)
    if length < (last - first) / 2:
        bottom, top = view.field[plane.rows] if plane.upwards else view.field[plane.rows][::-1]
        height = bottom + 0.03 * (top - bottom)
        panel.plot([first + inset, first + inset + length], [height, height], color="white", linewidth=1.2)
        panel.text(first + inset, height, " 5 cm", color="white", fontsize=6, va="bottom")


def _draw_outline(panel: Axes, part: TurnedTarget, plane: Plane, view: View, *, is_main: bool) -> None:
    found = part.cut(plane, view.levels[plane.across])
    if found is None:
        return
    mask, row, column = found
    closed = np.pad(mask, 1).astype(np.float32)
    panel.contour(
        np.arange(closed.shape[1]) + column - 1,
        np.arange(closed.shape[0]) + row - 1,
        closed,
        levels=[0.5],
        colors=[colour(part.target.value)],
        linewidths=1.5 if is_main else 0.8,
        linestyles=_find_style(part.target.value),
    )


def _draw_legend(figure: Figure, shown: Sequence[TargetAnswer], columns: int) -> None:
    lines = [Line2D([], [], color=colour(target.value), ls=_find_style(target.value)) for target in shown]
    legend = figure.legend(
        lines,
        [" " + _shorten(target.name) for target in shown],
        loc="lower center",
        ncols=columns,
        frameon=False,
        fontsize=8,
        labelcolor=_INK,
        borderaxespad=0.2,
        labelspacing=0.3,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _find_style(value: int) -> Style:
    """Give the style of outlines: colours come round again, and then lines are broken."""
    return _STYLES[(value - 1) // len(COLOURS) % len(_STYLES)]


def _shorten(name: str) -> str:
    text = _replace_unknown(" ".join(name.split()))
    return text if len(text) <= _NAME_AT else text[: _NAME_AT - 1] + "…"


def _replace_unknown(text: str) -> str:
    """Put a question mark for what the font has no picture of, which would be a warning for each."""
    font = get_font(findfont(FontProperties()))
    return "".join(letter if font.get_char_index(ord(letter)) else "?" for letter in text)
