"""The picture of images under several prompts, as in the paper's Figures 3 and 4.

In: for each prompt an image, and the predicted and the true label map on its grid. Out: a PNG with a row a prompt and
the columns image, prediction and truth.

Source: DuPLUS, arXiv 2510.03483, Figures 3 and 4 (the arrangement).
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError
from duplus_nnunet.reporting.colours import colour

Scalar = TypeVar("Scalar", bound=np.generic)

_PANEL_INCHES = 1.7
_OPACITY = 0.4
_WRAP_AT = 22
# Share of a structure's largest area from which more of it does not make up for another one that is missing.
_WELL_SHOWN = 0.6


@dataclass(frozen=True)
class Volume:
    """An image to be shown as radiologists look at one: the patient's right is on the left.

    Attributes:
        image: Intensities in the order (foot to head, front to back, patient's right to left).
        spacing: Along the same axes, in mm.
        window: Darkest and brightest intensity shown.
    """

    image: NDArray[np.float32]
    spacing: tuple[float, float, float]
    window: tuple[float, float]


@dataclass(frozen=True)
class SliceView:
    """One slice through a volume.

    Attributes:
        axis: 0 for an axial slice (front on top), 1 for a coronal one (head on top).
        level: Its index along that axis.
    """

    axis: int
    level: int

    def cut(self, volume: NDArray[Scalar]) -> NDArray[Scalar]:
        """Take the slice out of a volume in array order (D, H, W)."""
        return volume[self.level] if self.axis == 0 else volume[::-1, self.level]

    def aspect(self, spacing: tuple[float, float, float]) -> float:
        """Height of a pixel over its width."""
        return spacing[1 - self.axis] / spacing[2]

    def find_in(self, volume: Volume, other: Volume) -> "SliceView":
        """Find the slice of another volume nearest to this one of `volume`; the middles of both are the same place."""
        before, after = volume.image.shape[self.axis], other.image.shape[self.axis]
        distance = (self.level - (before - 1) / 2) * volume.spacing[self.axis]
        level = round(distance / other.spacing[self.axis] + (after - 1) / 2)
        return SliceView(self.axis, min(max(level, 0), after - 1))


@dataclass(frozen=True)
class FigureRow:
    """One prompt on one image.

    Attributes:
        prompt: What was asked for; stands at the left.
        prediction: Label map in array order (D, H, W), on the image's grid.
        truth: Label map of the same shape, holding the labels that were asked for.
        volume: The image.
        view: The slice that is shown.
        note: What stands under the prediction, such as its Dice.
    """

    prompt: str
    prediction: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    volume: Volume
    view: SliceView
    note: str = ""


def save_comparison(path: Path, rows: Sequence[FigureRow], labels: Mapping[str, int]) -> None:
    """Write the picture.

    Args:
        path: File to write, such as `demo.png`.
        rows: One a prompt.
        labels: Label value by name, for the legend and the colours.

    Raises:
        DataError: There is no row, or a label map is not on its image's grid.
    """
    _check(rows)
    size = (3 * _PANEL_INCHES + 1.6, len(rows) * _PANEL_INCHES + 1.3)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for row, panels in zip(rows, axes, strict=True):
        _draw_row(panels, row)
    for panel, heading in zip(axes[0], ("Image", "Prediction", "Truth"), strict=True):
        panel.set_title(heading, fontsize=11, fontweight="bold")
    drawn = [row.view.cut(part) for row in rows for part in (row.prediction, row.truth)]
    _draw_legend(figure, labels, drawn)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def choose_view(truths: Sequence[NDArray[np.uint8]]) -> SliceView:
    """Find the axial or coronal slice that shows most structures well; one in several truths counts as often."""
    views = [SliceView(axis, level) for axis in (0, 1) for level in range(truths[0].shape[axis])]
    shares = np.concatenate([_share_per_slice(truths, axis) for axis in (0, 1)])
    if not shares.size:
        return SliceView(0, len(truths[0]) // 2)
    return views[int(np.minimum(shares, _WELL_SHOWN).sum(axis=1).argmax())]


def _check(rows: Sequence[FigureRow]) -> None:
    if not rows:
        raise DataError("There is no prompt to draw a picture of; expected one row or more.")
    for row in rows:
        for kind, labels in (("prediction", row.prediction), ("truth", row.truth)):
            if labels.shape != row.volume.image.shape:
                raise DataError(
                    f"The {kind} of {row.prompt!r} has shape {labels.shape}, the image {row.volume.image.shape}; "
                    "a picture needs both on one grid."
                )


def _share_per_slice(truths: Sequence[NDArray[np.uint8]], axis: int) -> NDArray[np.float64]:
    """Measure each structure's area a slice, as a share of its largest; shape (slices, structures)."""
    across = (1, 2) if axis == 0 else (0, 2)
    areas = [(truth == value).sum(axis=across) for truth in truths for value in np.unique(truth[truth > 0])]
    return np.array([area / area.max() for area in areas]).reshape(len(areas), truths[0].shape[axis]).T


def _draw_row(panels: Sequence[Axes], row: FigureRow) -> None:
    for panel, labels in zip(panels, (None, row.prediction, row.truth), strict=True):
        _draw_panel(panel, row.volume, labels, row.view)
    panels[0].set_ylabel("\n".join(textwrap.wrap(row.prompt, _WRAP_AT)), fontsize=9)
    panels[1].set_xlabel(row.note, fontsize=9)
    for side, x in (("R", 0.05), ("L", 0.95)):
        panels[0].annotate(
            side, (x, 0.93), xycoords="axes fraction", color="white", ha="center", va="center", fontsize=9,
            bbox={"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 1.5},
        )  # fmt: skip


def _draw_panel(panel: Axes, volume: Volume, labels: NDArray[np.uint8] | None, view: SliceView) -> None:
    dark, bright = volume.window
    panel.imshow(
        view.cut(volume.image),
        cmap="gray",
        vmin=dark,
        vmax=bright,
        interpolation="bicubic",
        aspect=view.aspect(volume.spacing),
    )
    shown = np.zeros((1, 1), dtype=np.uint8) if labels is None else view.cut(labels)
    for value in np.unique(shown[shown > 0]):
        mask, painted = (shown == value).astype(float), colour(int(value))
        panel.contourf(mask, levels=[0.5, 1.5], colors=[painted], alpha=_OPACITY)
        panel.contour(mask, levels=[0.5], colors=[painted], linewidths=1.6)
    panel.set_xticks([])
    panel.set_yticks([])


def _draw_legend(figure: Figure, labels: Mapping[str, int], slices: Sequence[NDArray[np.uint8]]) -> None:
    shown = {value for one in slices for value in np.unique(one)}
    patches = [Patch(color=colour(value), label=name) for name, value in labels.items() if value and value in shown]
    columns = max(1, min(len(patches), 5))
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
