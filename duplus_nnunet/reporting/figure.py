"""The picture of one image under several target prompts, as in the paper's Figure 3.

In: an image, and for each prompt the predicted and the true label map on its grid. Out: a PNG with a row a prompt and the columns
image, prediction and truth.

Source: DuPLUS, arXiv 2510.03483, Figure 3 (the arrangement).
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError

# Readable on grey, and apart from one another for the colour-blind as far as seven colours can be.
COLOURS = ("#e8743b", "#19a979", "#3f9bf4", "#f2cf3b", "#b565d9", "#ed4a7b", "#5be0e6", "#a3c644", "#c49a6c", "#9fa8da")

_PANEL_INCHES = 2.7
_OPACITY = 0.4
_WRAP_AT = 24


@dataclass(frozen=True)
class Row:
    """One prompt on the image.

    Attributes:
        prompt: What was asked for; stands at the left.
        prediction: Label map in array order (D, H, W).
        truth: Label map of the same shape, holding the labels that were asked for.
        note: What stands under the prediction, such as its Dice.
    """

    prompt: str
    prediction: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    note: str = ""


@dataclass(frozen=True)
class Slices:
    """An image as it is shown: axial slices with the patient's right on the left, as radiologists look at them.

    Attributes:
        image: Intensities in the order (foot to head, front to back, patient's right to left).
        spacing: Along the same axes, in mm.
        window: Darkest and brightest intensity shown.
    """

    image: NDArray[np.float32]
    spacing: tuple[float, float, float]
    window: tuple[float, float]


def save_comparison(path: Path, slices: Slices, rows: Sequence[Row], labels: Mapping[str, int], title: str = "") -> None:
    """Write the picture, at the axial slice that shows most of all that is in the truth.

    Args:
        path: File to write, such as `demo.png`.
        slices: The image.
        rows: One a prompt.
        labels: Label value by name, for the legend and the colours.
        title: Stands on top.

    Raises:
        DataError: There is no row, or a label map is not on the image's grid.
    """
    _check(slices, rows)
    level = choose_slice([row.truth for row in rows])
    size = (3 * _PANEL_INCHES + 1.6, len(rows) * _PANEL_INCHES + 1.3)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for row, panels in zip(rows, axes, strict=True):
        _draw_row(panels, slices, row, level)
    for panel, heading in zip(axes[0], ("Image", "Prediction", "Truth"), strict=True):
        panel.set_title(heading, fontsize=12, fontweight="bold")
    _draw_legend(figure, labels, rows)
    figure.suptitle(title, fontsize=13)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.print_png(path)


def choose_slice(truths: Sequence[NDArray[np.uint8]]) -> int:
    """Find the slice along the first axis that shows every truth best: the largest smallest share of each structure."""
    shares = [share for truth in truths for share in _share_per_slice(truth)]
    if not shares:
        return len(truths[0]) // 2
    weakest = np.min(shares, axis=0)
    return int((weakest if weakest.any() else np.sum(shares, axis=0)).argmax())


def colour(value: int) -> str:
    """Return the colour of a label value, 1 or more; they come round again after ten."""
    return COLOURS[(value - 1) % len(COLOURS)]


def _check(slices: Slices, rows: Sequence[Row]) -> None:
    if not rows:
        raise DataError("There is no prompt to draw a picture of; expected one row or more.")
    for row in rows:
        for kind, labels in (("prediction", row.prediction), ("truth", row.truth)):
            if labels.shape != slices.image.shape:
                raise DataError(
                    f"The {kind} of {row.prompt!r} has shape {labels.shape}, the image {slices.image.shape}; "
                    "a picture needs both on one grid."
                )


def _share_per_slice(truth: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    areas = [(truth == value).sum(axis=(1, 2)) for value in np.unique(truth[truth > 0])]
    return [area / area.max() for area in areas]


def _draw_row(panels: Sequence[Axes], slices: Slices, row: Row, level: int) -> None:
    blank = np.zeros_like(row.truth[level])
    for panel, labels in zip(panels, (blank, row.prediction[level], row.truth[level]), strict=True):
        _draw_panel(panel, slices, labels, level)
    panels[0].set_ylabel("\n".join(textwrap.wrap(row.prompt, _WRAP_AT)), fontsize=11)
    panels[1].set_xlabel(row.note, fontsize=10)
    for side, x in (("R", 0.03), ("L", 0.97)):
        place = {"ha": "left" if side == "R" else "right", "va": "top", "transform": panels[0].transAxes}
        panels[0].text(x, 0.97, side, color="white", fontsize=11, fontweight="bold", **place)


def _draw_panel(panel: Axes, slices: Slices, labels: NDArray[np.uint8], level: int) -> None:
    dark, bright = slices.window
    panel.imshow(
        slices.image[level],
        cmap="gray",
        vmin=dark,
        vmax=bright,
        interpolation="bicubic",
        aspect=slices.spacing[1] / slices.spacing[2],
    )
    for value in np.unique(labels[labels > 0]):
        mask, painted = (labels == value).astype(float), colour(int(value))
        panel.contourf(mask, levels=[0.5, 1.5], colors=[painted], alpha=_OPACITY)
        panel.contour(mask, levels=[0.5], colors=[painted], linewidths=1.6)
    panel.set_xticks([])
    panel.set_yticks([])


def _draw_legend(figure: Figure, labels: Mapping[str, int], rows: Sequence[Row]) -> None:
    shown = set(np.unique([value for row in rows for value in np.unique([row.truth, row.prediction])]))
    patches = [Patch(color=colour(value), label=name) for name, value in labels.items() if value in shown and value]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 4) or 1, frameon=False, fontsize=11)
