"""Chooses the axial, coronal and sagittal slices that show a target.

Slices follow the radiological convention: the patient's right on the left, head or front on top; in sagittal slices the
front is on the left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.outputs.answer import Box, CaseAnswer, TargetAnswer
from duplus_nnunet.outputs.measures import Mask, compute_centroid, count_voxels
from duplus_nnunet.outputs.world import NO_REORIENTATION, Affine, Reorientation, find_affine, find_reorientation

# Share of a target's largest area in any slice; the central slice of a horseshoe, or of a pair, may show little of it.
_WELL_FILLED = 0.8
_MIN_FIELD_MM = 180.0
_FIELD_PER_EXTENT = 1.7
_MARGIN_MM = 10.0
# Margins of the intensity window, as shares of the range around a target, so that fat and bone stay visible.
_DARKER, _BRIGHTER = 0.25, 0.35
_SAMPLED_SLICES = 20


@dataclass(frozen=True)
class Plane:
    """An anatomical plane of an image with the axes (foot to head, front to back, right to left).

    Attributes:
        name: `axial`, `coronal` or `sagittal`.
        across: Axis perpendicular to the plane.
        rows: Vertical axis of the picture.
        columns: Horizontal axis of the picture, from left to right.
        upwards: Whether the vertical axis runs upwards.
        letters: Direction at the left, right, top and bottom edge: Right, Left, Anterior, Posterior, Head, Foot.
    """

    name: str
    across: int
    rows: int
    columns: int
    upwards: bool
    letters: str


PLANES = (
    Plane("axial", 0, 1, 2, upwards=False, letters="RLAP"),
    Plane("coronal", 1, 0, 2, upwards=True, letters="RLHF"),
    Plane("sagittal", 2, 0, 1, upwards=True, letters="APHF"),
)


@dataclass(frozen=True)
class OrientedTarget:
    """A predicted target in patient orientation.

    Attributes:
        target: The prediction.
        box: Its bounding box.
        mask: Its mask inside the box.
    """

    target: TargetAnswer
    box: Box
    mask: Mask

    def cut(self, plane: Plane, level: int) -> tuple[Mask, int, int] | None:
        """Return the mask in a slice, and its first row and column; None if the slice does not show the target."""
        if not self.box[plane.across].start <= level < self.box[plane.across].stop:
            return None
        mask = self.mask.take(level - self.box[plane.across].start, axis=plane.across)
        return (mask, self.box[plane.rows].start, self.box[plane.columns].start) if mask.any() else None


@dataclass(frozen=True)
class OrientedCase:
    """An image and its prediction in patient orientation.

    Attributes:
        image: First channel; axes (foot to head, front to back, right to left) if the orientation is known.
        spacing: Voxel size along these axes, in mm.
        parts: The targets with a non-empty mask.
        reorientation: How the array of nnU-Net's reader became `image`.
        affine: From indices (z, y, x) of that array to world coordinates in mm (right, anterior, superior); None if the
            orientation of the patient is unknown.
    """

    image: NDArray[Any]
    spacing: tuple[float, float, float]
    parts: tuple[OrientedTarget, ...]
    reorientation: Reorientation
    affine: Affine | None

    @property
    def oriented(self) -> bool:
        """Whether the orientation of the patient is known."""
        return self.affine is not None


@dataclass(frozen=True)
class View:
    """The slices, field of view and intensity window of a picture.

    Attributes:
        levels: Index of the slice along each axis.
        field: First and last index shown along each axis, inclusive, in fractional voxels.
        window: Darkest and brightest intensity.
    """

    levels: tuple[int, int, int]
    field: tuple[tuple[float, float], ...]
    window: tuple[float, float]


@dataclass(frozen=True)
class SlicePosition:
    """Where a slice lies.

    Attributes:
        axis: Axis of the array of nnU-Net's reader that the slice is perpendicular to: `z`, `y` or `x`.
        index: Index along that axis, from 0, as in the tables of statistics.
        side: Where the coordinate rises to: Superior, Anterior or Right.
        millimetres: World coordinate where the three slices of a view meet, in mm; None if it is unknown.
    """

    axis: str
    index: int
    side: str
    millimetres: float | None

    @property
    def text(self) -> str:
        """The position in a few words, such as `z 45, S -312.5 mm`."""
        world = "" if self.millimetres is None else f", {self.side} {self.millimetres:.1f} mm"
        return f"{self.axis} {self.index}{world}"


def orient_case(answer: CaseAnswer, image: NDArray[Any]) -> OrientedCase:
    """Bring an image and its prediction into patient orientation; arrays are views, not copies.

    Args:
        answer: Prediction of the case.
        image: The image on the same grid, (C, D, H, W).
    """
    known = find_reorientation(answer.geometry)
    reorientation = known or NO_REORIENTATION
    foot_head, front_back, right_left = (answer.geometry.spacing[axis] for axis in reorientation.order)
    parts = tuple(
        OrientedTarget(
            target, reorientation.apply_to_box(target.box, answer.geometry.shape), reorientation.apply(target.mask)
        )
        for target in answer.targets
        if target.mask.any()
    )
    spacing = (foot_head, front_back, right_left)
    affine = None if known is None else find_affine(answer.geometry)
    return OrientedCase(reorientation.apply(image[0]), spacing, parts, reorientation, affine)


def locate_slices(case: OrientedCase, view: View) -> tuple[SlicePosition, ...]:
    """Return where the axial, coronal and sagittal slice of a view lie."""
    order, flips = case.reorientation.order, case.reorientation.flips
    indices = [0, 0, 0]
    for axis, flip, level, size in zip(order, flips, view.levels, case.image.shape, strict=True):
        indices[axis] = size - 1 - level if flip else level
    right, anterior, superior = (None,) * 3 if case.affine is None else (case.affine @ [*indices, 1.0])[:3]
    return tuple(
        SlicePosition("zyx"[axis], indices[axis], side, None if mm is None else float(mm))
        for axis, side, mm in zip(order, "SAR", (superior, anterior, right), strict=True)
    )


def view_target(case: OrientedCase, part: OrientedTarget) -> View:
    """Choose the slices closest to the centroid of a target among those that show much of it."""
    counts = count_voxels(part.mask)
    centroid = compute_centroid(counts)
    levels = []
    for side, count, centre in zip(part.box, counts, centroid, strict=True):
        filled = np.flatnonzero(count >= _WELL_FILLED * count.max())
        levels.append(side.start + int(filled[np.abs(filled - centre).argmin()]))
    z, y, x = levels
    filled_slices = [np.flatnonzero(count) for count in counts]
    bounds = [
        (side.start + int(filled[0]), side.start + int(filled[-1]))
        for side, filled in zip(part.box, filled_slices, strict=True)
    ]
    return View((z, y, x), _find_field(case, bounds), _find_window(case, part, levels))


def view_image(case: OrientedCase) -> View:
    """Choose the central slices of the whole image."""
    z, y, x = ((size - 1) // 2 for size in case.image.shape)
    field = tuple((-0.5, size - 0.5) for size in case.image.shape)
    inner = tuple(slice(size // 4, max(size // 4 + 1, size - size // 4)) for size in case.image.shape)
    step = max(1, case.image.shape[0] // _SAMPLED_SLICES)
    return View((z, y, x), field, _compute_window(case.image[inner][::step].ravel()))


def _find_field(case: OrientedCase, bounds: list[tuple[int, int]]) -> tuple[tuple[float, float], ...]:
    """Find the field of view: a cube around the target, shifted and cropped to lie inside the image."""
    extents = [(last - first + 1) * mm for (first, last), mm in zip(bounds, case.spacing, strict=True)]
    side = max(_MIN_FIELD_MM, _FIELD_PER_EXTENT * max(extents))
    field = []
    for (first, last), mm, size in zip(bounds, case.spacing, case.image.shape, strict=True):
        width = min(side / mm, size)
        start = min(max((first + last) / 2 - width / 2, -0.5), size - 0.5 - width)
        field.append((start, start + width))
    return tuple(field)


def _find_window(case: OrientedCase, part: OrientedTarget, levels: Sequence[int]) -> tuple[float, float]:
    """Compute the intensity window from the voxels in and close to a target, in its three slices."""
    from scipy.ndimage import maximum_filter

    values = []
    for plane in PLANES:
        section = part.cut(plane, levels[plane.across])
        if section is None:
            continue
        mask, row, column = section
        shown = case.image.take(levels[plane.across], axis=plane.across)
        around = np.zeros(shown.shape, np.uint8)
        around[row : row + mask.shape[0], column : column + mask.shape[1]] = mask
        reach = [2 * round(_MARGIN_MM / case.spacing[axis]) + 1 for axis in (plane.rows, plane.columns)]
        values.append(shown[maximum_filter(around, reach) > 0])
    return _compute_window(np.concatenate(values))


def _compute_window(values: NDArray[Any]) -> tuple[float, float]:
    finite = values[np.isfinite(values)].astype(np.float32)
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(finite, (5, 95)))
    width = max(high - low, 1e-6)
    return low - _DARKER * width, high + _BRIGHTER * width
