"""The slices of a DICOM series: their place in the patient, and masks laid onto them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.dicom.extra import require
from duplus_nnunet.dicom.series import hash_uid
from duplus_nnunet.errors import DataError

Mask = NDArray[np.bool_]
Affine = NDArray[np.float64]

# Directions of slices that differ by less are equal.
_SAME_DIRECTION = 1e-3
# Two slices nearer than this, in mm, lie at one position.
_SAME_POSITION = 1e-3
# Grids whose voxels correspond up to this part of a voxel are equal; headers round to about that.
_SAME_VOXEL = 0.05
# DICOM's patient coordinates run to the left and to the back; those of an affine to the right and to the front.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class SourceSlice:
    """A slice of a series.

    Attributes:
        header: Header of its file, a pydicom data set without pixels.
        position: Centre of its first voxel in the patient's coordinates, mm (LPS).
        frame: Its number in a multi-frame file, from 1; None in a file of one slice.
    """

    header: Any
    position: NDArray[np.float64]
    frame: int | None = None

    @property
    def reference(self) -> tuple[str, str]:
        """SOP class and instance UID of its file."""
        return str(self.header.SOPClassUID), str(self.header.SOPInstanceUID)


@dataclass(frozen=True)
class SourceSlices:
    """The slices of one series, in the order of their positions along their normal.

    Attributes:
        slices: The slices.
        headers: Header of each file, in the order of the slices.
        directions: Unit vectors along a row and along a column, shape (2, 3), mm (LPS).
        spacing: Distance of neighbouring voxels along a column and along a row, in mm.
    """

    slices: tuple[SourceSlice, ...]
    headers: tuple[Any, ...]
    directions: NDArray[np.float64]
    spacing: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of slices, rows and columns."""
        return len(self.slices), int(self.headers[0].Rows), int(self.headers[0].Columns)

    @property
    def series(self) -> str:
        """UID of the series."""
        return str(self.headers[0].SeriesInstanceUID)

    @property
    def hash(self) -> str:
        """What stands for the series in names and records."""
        return hash_uid(self.series)

    @property
    def frame_of_reference(self) -> str:
        """UID of the frame of reference."""
        return str(self.headers[0].FrameOfReferenceUID)

    @cached_property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector perpendicular to the slices, along which they are ordered."""
        normal: NDArray[np.float64] = np.cross(self.directions[0], self.directions[1])
        return normal

    @cached_property
    def heights(self) -> NDArray[np.float64]:
        """Position of each slice along the normal, in mm."""
        heights: NDArray[np.float64] = np.array([one.position for one in self.slices]) @ self.normal
        return heights

    @property
    def slice_distance(self) -> float:
        """Mean distance of neighbouring slices along the normal, in mm; of a single slice, its thickness."""
        if len(self.slices) < 2:
            return self._thickness
        return float(self.heights[-1] - self.heights[0]) / (len(self.slices) - 1)

    @property
    def affine(self) -> Affine:
        """From indices (slice, row, column) to mm, towards right, front and head (RAS+), shape (4, 4).

        Slices are taken to lie evenly between the first and the last one.
        """
        first, last = self.slices[0].position, self.slices[-1].position
        step = (last - first) / (len(self.slices) - 1) if len(self.slices) > 1 else self.normal * self._thickness
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 3] = step, first
        affine[:3, 1] = self.directions[1] * self.spacing[0]
        affine[:3, 2] = self.directions[0] * self.spacing[1]
        return _LPS_TO_RAS @ affine

    def locate(self, index: int) -> Affine:
        """Return the matrix (4, 3) from (row, column, 1) of a slice to mm (LPS), homogeneous."""
        place = np.zeros((4, 3))
        place[:3, 0] = self.directions[1] * self.spacing[0]
        place[:3, 1] = self.directions[0] * self.spacing[1]
        place[:3, 2] = self.slices[index].position
        place[3, 2] = 1
        return place

    @property
    def _thickness(self) -> float:
        return float(self.headers[0].get("SliceThickness") or 1)


def read_source_slices(files: Sequence[Path]) -> SourceSlices:
    """Read the headers of the files of a series, in any order.

    Args:
        files: Every file of one series: one a slice, or one multi-frame file.

    Raises:
        DataError: A file is not a slice of a DICOM series, or they are of several series, directions, sizes or frames
            of reference, or two lie at one position.
        HostError: The extra `dicom` is not installed.
    """
    pydicom = require("pydicom")
    headers = [_read_header(pydicom, Path(file)) for file in files]
    if not headers:
        raise DataError("A DICOM series was named without files. Name all of its slices.")
    where = Path(files[0]).parent
    _require_one(headers, where)
    slices = [one for header in headers for one in _list_slices(header, where)]
    directions, spacing = _read_plane(headers[0], where)
    normal = np.cross(*directions)
    order = np.argsort([one.position @ normal for one in slices], kind="stable")
    ordered = tuple(slices[index] for index in order)
    heights = np.array([one.position @ normal for one in ordered])
    if len(heights) > 1 and np.diff(heights).min() < _SAME_POSITION:
        raise DataError(
            f"{where}: two slices of the series lie at one position. It may hold two acquisitions; keep one of them."
        )
    files_in_order = tuple({one.reference[1]: one.header for one in ordered}.values())
    return SourceSlices(ordered, files_in_order, directions, spacing)


def lay_on_slices(mask: NDArray[Any], affine: Affine, source: SourceSlices) -> tuple[NDArray[Any], bool]:
    """Bring a mask or label map to the grid of a series.

    Where its grid is the series', with axes in any order and direction, each voxel keeps its value. Elsewhere, such as
    after the correction of a gantry tilt, a voxel of the series gets the value of the nearest voxel of the mask.

    Args:
        mask: Shape (z, y, x) of the mask's own grid.
        affine: From its indices (z, y, x) to mm (RAS), shape (4, 4).
        source: The series.

    Returns:
        Shape (slices, rows, columns); and whether the grids are the same.
    """
    same = _is_same_grid(mask.shape, affine, source)
    laid = np.zeros(source.shape, mask.dtype)
    to_index = np.linalg.inv(affine) @ _LPS_TO_RAS
    rows, columns = np.arange(source.shape[1])[:, None], np.arange(source.shape[2])
    for index, plane in enumerate(laid):
        down, across, start = (to_index @ source.locate(index)).T[:, :3]
        inside = np.ones(plane.shape, bool)
        nearest = []
        for axis, length in enumerate(mask.shape):
            place = np.rint(start[axis] + rows * down[axis] + columns * across[axis]).astype(np.int64)
            inside &= (place >= 0) & (place < length)
            nearest.append(np.clip(place, 0, length - 1))
        plane[...] = np.where(inside, mask[tuple(nearest)], 0)
    return laid, same


def lies_within(shape: Sequence[int], affine: Affine, source: SourceSlices) -> bool:
    """Report whether a grid lies within the box of a series, give or take two voxels of the larger size.

    Args:
        shape: Shape (z, y, x) of the grid.
        affine: From its indices (z, y, x) to mm (RAS), shape (4, 4).
        source: The series.
    """
    last = np.array(source.shape[1:]) - 1
    edges = np.array([(row, column, 1) for row in (0, last[0]) for column in (0, last[1])]).T
    places = np.hstack([(source.locate(index) @ edges)[:3] for index in range(source.shape[0])])
    ends = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]).T
    ends[:3] *= np.array(shape)[:, None] - 1
    corners = (_LPS_TO_RAS @ affine @ ends)[:3]
    margin = 2 * max(*np.linalg.norm(affine[:3, :3], axis=0), *np.linalg.norm(source.affine[:3, :3], axis=0))
    below, above = places.min(axis=1) - corners.min(axis=1), corners.max(axis=1) - places.max(axis=1)
    return bool(max(below.max(), above.max()) <= margin)


def _is_same_grid(shape: Sequence[int], affine: Affine, source: SourceSlices) -> bool:
    """Report whether each voxel of a series is one voxel of a grid, and the other way round."""
    if int(np.prod(shape)) != int(np.prod(source.shape)):
        return False
    to_index = np.linalg.inv(affine) @ _LPS_TO_RAS
    last = np.array(source.shape[1:]) - 1
    corners = np.array([(row, column, 1) for row in (0, last[0]) for column in (0, last[1])]).T
    indices = np.hstack([(to_index @ source.locate(index) @ corners)[:3] for index in range(source.shape[0])])
    ends = np.stack([indices.min(axis=1), indices.max(axis=1)])
    expected = np.stack([np.zeros(3), np.array(shape) - 1.0])
    return bool(np.abs(indices - np.rint(indices)).max() < _SAME_VOXEL and np.abs(ends - expected).max() < _SAME_VOXEL)


def _read_header(pydicom: Any, file: Path) -> Any:
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True)
    except (OSError, pydicom.errors.InvalidDicomError, ValueError, KeyError) as error:
        raise DataError(f"{file} cannot be read as DICOM ({error}). Name the slices of one series.") from error
    for name in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns"):
        if not header.get(name):
            raise DataError(f"{file} is not a slice of a series in a patient's coordinates: it has no {name}.")
    return header


def _require_one(headers: Sequence[Any], where: Path) -> None:
    """Raise DataError unless headers agree on series, frame of reference and size."""
    for name in ("SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns"):
        values = {str(header.get(name)) for header in headers}
        if len(values) > 1:
            raise DataError(f"{where}: the slices have {len(values)} different values of {name}. Name one series.")
    planes = [plane for header in headers for plane in _list_planes(header)]
    directions = np.array([plane.ImageOrientationPatient for plane in planes if "ImageOrientationPatient" in plane])
    if len(directions) and np.abs(directions.astype(float) - directions[0].astype(float)).max() > _SAME_DIRECTION:
        raise DataError(f"{where}: the slices have several directions. Name the slices of one direction.")


def _list_planes(header: Any) -> list[Any]:
    """List what holds direction and spacing: the header, or the functional groups of a multi-frame file."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        return [header]
    groups = [*header.get("SharedFunctionalGroupsSequence", []), *header.PerFrameFunctionalGroupsSequence]
    names = ("PlaneOrientationSequence", "PixelMeasuresSequence")
    return [group[name].value[0] for group in groups for name in names if name in group]


def _list_slices(header: Any, where: Path) -> list[SourceSlice]:
    try:
        if "PerFrameFunctionalGroupsSequence" in header:
            frames = [group.PlanePositionSequence[0] for group in header.PerFrameFunctionalGroupsSequence]
            places = [np.array(frame.ImagePositionPatient, dtype=float) for frame in frames]
            return [SourceSlice(header, place, number) for number, place in enumerate(places, 1)]
        return [SourceSlice(header, np.array(header.ImagePositionPatient, dtype=float))]
    except (AttributeError, IndexError, TypeError) as error:
        raise DataError(f"{where}: a slice has no ImagePositionPatient. Name the slices of one series.") from error


def _read_plane(header: Any, where: Path) -> tuple[NDArray[np.float64], tuple[float, float]]:
    planes = _list_planes(header)
    direction = next((plane.ImageOrientationPatient for plane in planes if "ImageOrientationPatient" in plane), None)
    spacing = next((plane.PixelSpacing for plane in planes if "PixelSpacing" in plane), None)
    if direction is None or spacing is None:
        raise DataError(f"{where}: the slices have no ImageOrientationPatient or no PixelSpacing.")
    return np.array(direction, dtype=float).reshape(2, 3), (float(spacing[0]), float(spacing[1]))
