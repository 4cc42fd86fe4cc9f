"""Draws predictions under several prompts: one row per prompt, with the columns image, prediction and truth.

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
from duplus_nnunet.reporting.colours import SOLID, Dashes, choose_dashes, colour, to_line_style

Scalar = TypeVar("Scalar", bound=np.generic)

_PANEL_INCHES = 1.7
_OPACITY = 0.4
_WRAP_AT = 22
# Share of a structure's largest area beyond which a larger area no longer counts when a slice is chosen.
_WELL_SHOWN = 0.6


@dataclass(frozen=True)
class Volume:
    """An image in radiological orientation: the patient's right is on the left.

    Attributes:
        image: Intensities with axes (foot to head, front to back, patient's right to left).
        spacing: Voxel size along the same axes, in mm.
        window: Darkest and brightest intensity.
    """

    image: NDArray[np.float32]
    spacing: tuple[float, float, float]
    window: tuple[float, float]


@dataclass(frozen=True)
class SliceView:
    """One slice through a volume.

    Attributes:
        axis: 0 for an axial slice (front on top), 1 for a coronal one (head on top).
        level: Index of the slice along that axis.
    """

    axis: int
    level: int

    def cut(self, volume: NDArray[Scalar]) -> NDArray[Scalar]:
        """Extract the slice from a volume in array order (D, H, W)."""
        return volume[self.level] if self.axis == 0 else volume[::-1, self.level]

    def aspect(self, spacing: tuple[float, float, float]) -> float:
        """Return the height of a pixel divided by its width."""
        return spacing[1 - self.axis] / spacing[2]

    def find_in(self, volume: Volume, other: Volume) -> "SliceView":
        """Find the slice of another volume nearest to this slice of `volume`; the centres of both volumes coincide."""
        size, other_size = volume.image.shape[self.axis], other.image.shape[self.axis]
        distance = (self.level - (size - 1) / 2) * volume.spacing[self.axis]
        level = round(distance / other.spacing[self.axis] + (other_size - 1) / 2)
        return SliceView(self.axis, min(max(level, 0), other_size - 1))


@dataclass(frozen=True)
class FigureRow:
    """One prompt on one image.

    Attributes:
        prompt: The prompt, shown at the left.
        prediction: Label map in array order (D, H, W), on the image's grid.
        truth: Reference label map of the same shape, with the requested labels only.
        volume: The image.
        view: The slice to show.
        note: Text below the prediction, such as its Dice.
    """

    prompt: str
    prediction: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    volume: Volume
    view: SliceView
    note: str = ""


def save_figure(path: Path, rows: Sequence[FigureRow], labels: Mapping[str, int]) -> None:
    """Draw the figure and write it to a file.

    Args:
        path: File to write, such as `demo.png`.
        rows: One row per prompt.
        labels: Label value by name, for the legend and the colours.

    Raises:
        DataError: There is no row, or a label map is not on the grid of its image.
    """
    _check(rows)
    size = (3 * _PANEL_INCHES + 1.6, len(rows) * _PANEL_INCHES + 1.3)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    dashes = choose_dashes(value for value in labels.values() if value)
    for row, panels in zip(rows, axes, strict=True):
        _draw_row(panels, row, dashes)
    for panel, heading in zip(axes[0], ("Image", "Prediction", "Truth"), strict=True):
        panel.set_title(heading, fontsize=11, fontweight="bold")
    slices = [row.view.cut(label_map) for row in rows for label_map in (row.prediction, row.truth)]
    _draw_legend(figure, labels, slices, dashes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def choose_view(truths: Sequence[NDArray[np.uint8]]) -> SliceView:
    """Choose the axial or coronal slice that shows most structures well, over all reference label maps."""
    views = [SliceView(axis, level) for axis in (0, 1) for level in range(truths[0].shape[axis])]
    shares = np.concatenate([_share_per_slice(truths, axis) for axis in (0, 1)])
    if not shares.size:
        return SliceView(0, len(truths[0]) // 2)
    return views[int(np.minimum(shares, _WELL_SHOWN).sum(axis=1).argmax())]


def _check(rows: Sequence[FigureRow]) -> None:
    if not rows:
        raise DataError("The figure has no rows; expected at least one prompt.")
    for row in rows:
        for kind, labels in (("prediction", row.prediction), ("truth", row.truth)):
            if labels.shape != row.volume.image.shape:
                raise DataError(
                    f"The {kind} of {row.prompt!r} has shape {labels.shape}, the image {row.volume.image.shape}. "
                    "Give both on the same grid."
                )


def _share_per_slice(truths: Sequence[NDArray[np.uint8]], axis: int) -> NDArray[np.float64]:
    """Compute the area of each structure per slice, relative to its largest area; shape (slices, structures)."""
    across = (1, 2) if axis == 0 else (0, 2)
    areas = [(truth == value).sum(axis=across) for truth in truths for value in np.unique(truth[truth > 0])]
    return np.array([area / area.max() for area in areas]).reshape(len(areas), truths[0].shape[axis]).T


def _draw_row(panels: Sequence[Axes], row: FigureRow, dashes: Mapping[int, Dashes]) -> None:
    for panel, labels in zip(panels, (None, row.prediction, row.truth), strict=True):
        _draw_panel(panel, row.volume, labels, row.view, dashes)
    panels[0].set_ylabel("\n".join(textwrap.wrap(row.prompt, _WRAP_AT)), fontsize=9)
    panels[1].set_xlabel(row.note, fontsize=9)
    for side, x in (("R", 0.05), ("L", 0.95)):
        panels[0].annotate(
            side, (x, 0.93), xycoords="axes fraction", color="white", ha="center", va="center", fontsize=9,
            bbox={"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 1.5},
        )  # fmt: skip


def _draw_panel(
    panel: Axes,
    volume: Volume,
    labels: NDArray[np.uint8] | None,
    view: SliceView,
    dashes: Mapping[int, Dashes],
) -> None:
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
        mask, colour_of_value = (shown == value).astype(float), colour(int(value))
        panel.contourf(mask, levels=[0.5, 1.5], colors=[colour_of_value], alpha=_OPACITY)
        style = to_line_style(dashes.get(int(value), SOLID))
        panel.contour(mask, levels=[0.5], colors=[colour_of_value], linewidths=1.6, linestyles=[style])
    panel.set_xticks([])
    panel.set_yticks([])


def _draw_legend(
    figure: Figure,
    labels: Mapping[str, int],
    slices: Sequence[NDArray[np.uint8]],
    dashes: Mapping[int, Dashes],
) -> None:
    shown = {value for labels_in_slice in slices for value in np.unique(labels_in_slice)}
    patches = [
        Patch(
            facecolor=(colour(value), _OPACITY),
            edgecolor=colour(value),
            linewidth=1.6,
            linestyle=to_line_style(dashes[value]),
            label=name,
        )
        for name, value in labels.items()
        if value and value in shown
    ]
    columns = max(1, min(len(patches), 5))
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
