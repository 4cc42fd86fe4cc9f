"""What a report consists of: sections of paragraphs, tables, charts and image viewers.

Sections are made without a word of HTML; `duplus_nnunet.model_report.page` writes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

# A cell of a table. None is shown as "not known".
Cell = str | int | float | None


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text.

    Attributes:
        text: The text.
        kind: "text", or "warning" for what may be wrong, or "absent" for what could not be shown, and why.
    """

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: Name of its CSV file, without the ending.
        title: One line above it.
        headings: One heading a column, with the unit.
        rows: Cells, one a heading.
        shown: Number of rows that are shown at first; the others are folded.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    shown: int = 20


@dataclass(frozen=True)
class Chart:
    """A drawing by Matplotlib, shown as SVG; `--figures` writes it as PNG and SVG, with its numbers as CSV.

    Attributes:
        name: Name of its files, without the ending.
        title: One line above it.
        caption: What is seen, and what it does not show.
        description: What a reader who does not see it needs to know.
        figure: The drawing. Nothing is told by colour alone.
        numbers: What is drawn, one mapping a row, all with the same keys.
    """

    name: str
    title: str
    caption: str
    description: str
    figure: Figure
    numbers: Sequence[Mapping[str, Cell]]


@dataclass(frozen=True)
class Mask:
    """One target in a viewer.

    Attributes:
        target: Name of the target.
        prompt: Its target prompt.
        prediction: Boolean mask on the grid of the viewed volume, or None if it was not predicted.
        truth: Annotated mask, or None if the target was not annotated.
        note: Such as "Dice 0.91".
    """

    target: str
    prompt: str
    prediction: NDArray[np.bool_] | None
    truth: NDArray[np.bool_] | None = None
    note: str = ""


@dataclass(frozen=True)
class ViewedCase:
    """One image whose slices a reader scrolls, with the targets that a reader chooses.

    Attributes:
        title: Such as "CT, case amos_0007".
        context_prompt: The context prompt.
        image: Intensities with axes (foot to head, front to back, patient's right to left), as of
            `duplus_nnunet.reporting.figure.Volume`.
        spacing: Voxel size along the same axes, in mm.
        window: Darkest and brightest intensity.
        masks: The targets.
        levels: Index of each held slice in the whole image, if only some of its slices are held.
        depth: Number of slices of the whole image; 0: all are held.
    """

    title: str
    context_prompt: str
    image: NDArray[np.float32]
    spacing: tuple[float, float, float]
    window: tuple[float, float]
    masks: Sequence[Mask]
    levels: Sequence[int] = ()
    depth: int = 0


@dataclass(frozen=True)
class Viewer:
    """Images side by side, with one choice of targets for all of them.

    Attributes:
        name: Name of its files, without the ending.
        title: One line above it.
        caption: What is seen.
        cases: The images.
    """

    name: str
    title: str
    caption: str
    cases: Sequence[ViewedCase]


Block = Paragraph | Table | Chart | Viewer


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
        anchor: Its place in links, such as "scores".
        title: Its heading.
        blocks: What it shows, in order.
    """

    anchor: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
