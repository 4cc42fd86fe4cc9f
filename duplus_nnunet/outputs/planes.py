"""Slices through a patient: in come an answer and its image, out come the three planes through each target.

Everything is turned as radiologists look at it: patient's right on the left, head or front on top; in sagittal slices
the front is on the left.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.outputs.answer import Box, CaseAnswer, TargetAnswer
from duplus_nnunet.outputs.measures import Mask, count_voxels, find_centre
from duplus_nnunet.outputs.world import UNTURNED, find_turn

# Of a target's largest area in any slice; the middle of a horseshoe, or of a pair, may hold little of it.
_WELL_FILLED = 0.8
_LEAST_FIELD_MM = 180.0
_FIELD_PER_EXTENT = 1.7
_MARGIN_MM = 10.0
# Of the range of grey values around a target, what is added so that neither fat nor bone is lost.
_DARKER, _BRIGHTER = 0.25, 0.35
_SAMPLES = 20


@dataclass(frozen=True)
class Plane:
    """A direction in which to cut an image with the axes (foot to head, front to back, right to left).

    Attributes:
        name: `axial`, `coronal` or `sagittal`.
        across: The axis that is cut.
        rows: The axis that runs down the picture, or up.
        columns: The axis that runs to its right.
        upwards: Whether the rows run up.
        letters: What is at the left, right, top and bottom: Right, Left, Anterior, Posterior, Head, Foot.
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
class TurnedTarget:
    """A target, turned.

    Attributes:
        target: As it was found.
        box: Where it can be.
        mask: Its voxels inside the box.
    """

    target: TargetAnswer
    box: Box
    mask: Mask

    def cut(self, plane: Plane, level: int) -> tuple[Mask, int, int] | None:
        """Cut it by a slice; the rows and columns that it can be in, and the first of each. None if it is not there."""
        if not self.box[plane.across].start <= level < self.box[plane.across].stop:
            return None
        found = self.mask.take(level - self.box[plane.across].start, axis=plane.across)
        return (found, self.box[plane.rows].start, self.box[plane.columns].start) if found.any() else None


@dataclass(frozen=True)
class Scene:
    """An image and what was found in it, turned.

    Attributes:
        image: Its first channel, axes (foot to head, front to back, right to left) if the orientation is known.
        spacing: Along these axes, in mm.
        parts: The targets that are there.
        oriented: Whether the image's file says how the patient lies.
    """

    image: NDArray[Any]
    spacing: tuple[float, float, float]
    parts: tuple[TurnedTarget, ...]
    oriented: bool


@dataclass(frozen=True)
class View:
    """Where to look.

    Attributes:
        levels: The slice along each axis.
        field: First and last index that is shown along each axis, inclusive, as fractions of a voxel.
        window: Darkest and brightest intensity.
    """

    levels: tuple[int, int, int]
    field: tuple[tuple[float, float], ...]
    window: tuple[float, float]


def set_scene(answer: CaseAnswer, image: NDArray[Any]) -> Scene:
    """Turn an answer and its image; nothing is copied.

    Args:
        answer: What was found.
        image: The image on the same grid, (C, D, H, W).
    """
    turn = find_turn(answer.geometry)
    by = turn or UNTURNED
    foot_head, front_back, right_left = (answer.geometry.spacing[axis] for axis in by.order)
    parts = tuple(
        TurnedTarget(target, by.find_box(target.box, answer.geometry.shape), by.apply(target.mask))
        for target in answer.targets
        if target.mask.any()
    )
    return Scene(by.apply(image[0]), (foot_head, front_back, right_left), parts, turn is not None)


def look_at(scene: Scene, part: TurnedTarget) -> View:
    """Find the slices through a target: through its middle, or the nearest ones in which there is much of it."""
    counts = count_voxels(part.mask)
    centre = find_centre(counts)
    levels = []
    for box, count, middle in zip(part.box, counts, centre, strict=True):
        filled = np.flatnonzero(count >= _WELL_FILLED * count.max())
        levels.append(box.start + int(filled[np.abs(filled - middle).argmin()]))
    z, y, x = levels
    tight = [(box.start + int(at[0]), box.start + int(at[-1])) for box, at in _list_filled(part.box, counts)]
    return View((z, y, x), _find_field(scene, tight), _find_window(scene, part, levels))


def look_at_all(scene: Scene) -> View:
    """Look at the middle of the whole image."""
    z, y, x = ((size - 1) // 2 for size in scene.image.shape)
    field = tuple((-0.5, size - 0.5) for size in scene.image.shape)
    inner = tuple(slice(size // 4, max(size // 4 + 1, size - size // 4)) for size in scene.image.shape)
    return View((z, y, x), field, _spread(scene.image[inner][:: max(1, scene.image.shape[0] // _SAMPLES)].ravel()))


def _list_filled(box: Box, counts: tuple[NDArray[np.int64], ...]) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    for part, count in zip(box, counts, strict=True):
        yield part, np.flatnonzero(count)


def _find_field(scene: Scene, tight: list[tuple[int, int]]) -> tuple[tuple[float, float], ...]:
    """Find what to show: a cube around the target, moved and cut so that it lies inside the image."""
    extents = [(last - first + 1) * mm for (first, last), mm in zip(tight, scene.spacing, strict=True)]
    side = max(_LEAST_FIELD_MM, _FIELD_PER_EXTENT * max(extents))
    field = []
    for (first, last), mm, size in zip(tight, scene.spacing, scene.image.shape, strict=True):
        width = min(side / mm, size)
        start = min(max((first + last) / 2 - width / 2, -0.5), size - 0.5 - width)
        field.append((start, start + width))
    return tuple(field)


def _find_window(scene: Scene, part: TurnedTarget, levels: Sequence[int]) -> tuple[float, float]:
    """Find darkest and brightest from the voxels in and close around a target, in its three slices."""
    from scipy.ndimage import maximum_filter

    values = []
    for plane in PLANES:
        found = part.cut(plane, levels[plane.across])
        if found is None:
            continue
        mask, row, column = found
        shown = scene.image.take(levels[plane.across], axis=plane.across)
        around = np.zeros(shown.shape, np.uint8)
        around[row : row + mask.shape[0], column : column + mask.shape[1]] = mask
        reach = [2 * round(_MARGIN_MM / scene.spacing[axis]) + 1 for axis in (plane.rows, plane.columns)]
        values.append(shown[maximum_filter(around, reach) > 0])
    return _spread(np.concatenate(values))


def _spread(values: NDArray[Any]) -> tuple[float, float]:
    finite = values[np.isfinite(values)].astype(np.float32)
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(finite, (5, 95)))
    spread = max(high - low, 1e-6)
    return low - _DARKER * spread, high + _BRIGHTER * spread
