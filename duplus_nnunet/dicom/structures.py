"""Reads the structures of an RT Structure Set or a DICOM Segmentation as masks on the slices of their series.

A voxel belongs to a structure of contours if its centre lies inside by the even-odd rule over all closed contours of
the slice: contours inside others cut holes, as do keyholes. Frames of a segmentation have to lie on the slices.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.dicom.contour_checks import describe_gaps, find_overlaps
from duplus_nnunet.dicom.contours import fill_contours
from duplus_nnunet.dicom.extra import require
from duplus_nnunet.dicom.source_slices import Mask, SourceSlices
from duplus_nnunet.errors import DataError

STRUCTURES, SEGMENTATION = "RTSTRUCT", "SEG"
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
# A contour or frame belongs to the slice that is nearer than this share of the distance of slices.
_NEAR = 0.1
# Voxels of a frame and of its slice correspond up to this part of a voxel.
_SAME_VOXEL = 0.05


@dataclass(frozen=True)
class StructureFile:
    """A file of structures.

    Attributes:
        file: The file.
        content: Its data set.
        kind: `RTSTRUCT` or `SEG`.
        series: UID of the series that it refers to; empty if it does not say.
    """

    file: Path
    content: Any
    kind: str
    series: str


@dataclass(frozen=True)
class Structure:
    """A structure.

    Attributes:
        name: Its name in the file.
        mask: On the slices of the series, (slices, rows, columns).
        notes: What was left out of it, or is doubtful; without its name.
        problem: Why its mask cannot be used; empty if it can.
    """

    name: str
    mask: Mask
    notes: tuple[str, ...] = ()
    problem: str = ""


def open_structure_file(file: Path) -> StructureFile:
    """Read a file of structures.

    Raises:
        DataError: It is neither an RT Structure Set nor a DICOM Segmentation.
        HostError: The extra `dicom` is not installed.
    """
    pydicom = require("pydicom")
    try:
        content = pydicom.dcmread(file)
    except (OSError, pydicom.errors.InvalidDicomError, ValueError, KeyError) as error:
        raise DataError(f"{file} cannot be read as DICOM ({error}). Name an RTSTRUCT or SEG file.") from error
    kind = str(content.get("Modality", ""))
    if kind not in (STRUCTURES, SEGMENTATION):
        raise DataError(f"{file} is of the modality {kind!r}; expected RTSTRUCT or SEG. Name a file of structures.")
    return StructureFile(file, content, kind, _find_series(content, kind))


def read_structures(found: StructureFile, source: SourceSlices) -> list[Structure]:
    """Read all structures of a file on the slices of its series; a mask is empty if the structure has no voxel.

    Raises:
        DataError: The file refers to another series or frame of reference, or its contours or frames do not lie on the
            slices; or two structures have one name.
    """
    if found.series and found.series != source.series:
        raise DataError(f"{found.file} refers to another series than the images. Name the series that it was made on.")
    read = _read_contours if found.kind == STRUCTURES else _read_segments
    try:
        structures = list(read(found, source))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{found.file} is incomplete or damaged ({type(error).__name__}: {error}). Export it again."
        ) from error
    names = [structure.name for structure in structures]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise DataError(f"{found.file} has {names.count(double)} structures named {double!r}. Rename all but one.")
    return structures


def _find_series(content: Any, kind: str) -> str:
    """Return the UID of the series that a file refers to; empty if it names none, or several."""
    if kind == SEGMENTATION:
        uids = [str(item.SeriesInstanceUID) for item in content.get("ReferencedSeriesSequence", [])]
    else:
        uids = [
            str(series.SeriesInstanceUID)
            for frame in content.get("ReferencedFrameOfReferenceSequence", [])
            for study in frame.get("RTReferencedStudySequence", [])
            for series in study.get("RTReferencedSeriesSequence", [])
        ]
    return uids[0] if len(set(uids)) == 1 else ""


def list_references(found: StructureFile) -> frozenset[str]:
    """List the instance UIDs of the images that the contours or frames of a file refer to."""
    items = found.content.get("ROIContourSequence" if found.kind == STRUCTURES else "PerFrameFunctionalGroupsSequence")
    return frozenset(
        str(element.value)
        for item in items or ()
        for element in item.iterall()
        if element.keyword == "ReferencedSOPInstanceUID"
    )


def _check_frame(found: StructureFile, uid: str, what: str, source: SourceSlices) -> None:
    if uid and uid != source.frame_of_reference:
        raise DataError(
            f"{found.file}: {what} lies in another frame of reference than the images, so that where it lies in them "
            "is not known. Name the series that it was made on, or register the two first."
        )


def _find_slice(height: float, spread: float, source: SourceSlices) -> int | None:
    """Return the index of the slice at a height; None if there is none near enough, or the points are not level."""
    index = int(np.argmin(np.abs(source.heights - height)))
    near = _NEAR * float(np.diff(source.heights).min()) if len(source.heights) > 1 else _NEAR
    return index if abs(source.heights[index] - height) <= near and spread <= 2 * near else None


def _read_contours(found: StructureFile, source: SourceSlices) -> Iterator[Structure]:
    contours = {int(roi.ReferencedROINumber): roi for roi in found.content.get("ROIContourSequence", [])}
    for roi in found.content.get("StructureSetROISequence", []):
        name = str(roi.get("ROIName", "")).strip() or f"ROI {roi.ROINumber}"
        _check_frame(found, str(roi.get("ReferencedFrameOfReferenceUID", "")), repr(name), source)
        drawn = contours.get(int(roi.ROINumber))
        items = [] if drawn is None else list(drawn.get("ContourSequence", []))
        yield _draw(name, items, f"{found.file}, {name!r}", source)


def _draw(name: str, contours: Sequence[Any], where: str, source: SourceSlices) -> Structure:
    """Fill the contours of a structure, and say what is left out or doubtful."""
    closed: dict[int, list[NDArray[np.float64]]] = {}
    plain: dict[int, list[NDArray[np.float64]]] = {}
    others = copies = 0
    for contour in contours:
        kind = str(contour.get("ContourGeometricType", ""))
        if kind not in _CLOSED:
            others += 1
            continue
        index, corners = _place(contour, where, source)
        if any(np.array_equal(corners, other) for other in closed.get(index, ())):
            copies += 1
            continue
        closed.setdefault(index, []).append(corners)
        if kind == _CLOSED[0]:  # of the other kind, the standard says that they cut holes
            plain.setdefault(index, []).append(corners)
    mask = np.zeros(source.shape, bool)
    for index, shapes in closed.items():
        mask[index] = fill_contours(shapes, source.shape[1:])
    overlap, severe = find_overlaps(plain, source.shape[1:])
    notes = [f"{others} points or open contours were left out"] if others else []
    notes += [f"{copies} contours are copies of another one and were left out"] if copies else []
    notes += [note for note in (overlap, describe_gaps(list(closed))) if note]
    return Structure(name, mask, tuple(notes), overlap if severe else "")


def _place(contour: Any, where: str, source: SourceSlices) -> tuple[int, NDArray[np.float64]]:
    """Return the index of a contour's slice, and its corners (row, column) in voxels."""
    data = np.array([float(number) for number in contour.get("ContourData") or ()])
    if not len(data) or len(data) % 3:
        raise DataError(f"{where}: a contour has {len(data)} coordinates; expected three for each corner.")
    points = data.reshape(-1, 3)
    heights = points @ source.normal
    index = _find_slice(float(heights.mean()), float(np.ptp(heights)), source)
    if index is None:
        raise DataError(
            f"{where}: a contour {heights.min():.2f} to {heights.max():.2f} mm along the normal of the slices lies on "
            "none of them. It was drawn on another series; name that one."
        )
    corners = (points - source.slices[index].position) @ source.directions[::-1].T / source.spacing
    return index, corners


def _read_segments(found: StructureFile, source: SourceSlices) -> Iterator[Structure]:
    content = found.content
    _check_frame(found, str(content.get("FrameOfReferenceUID", "")), "the segmentation", source)
    kind = str(content.get("SegmentationType", ""))
    if kind not in ("BINARY", "LABELMAP"):
        raise DataError(f"{found.file} is a segmentation of the type {kind!r}; expected BINARY or LABELMAP.")
    pixels = np.asarray(content.pixel_array).reshape(-1, int(content.Rows), int(content.Columns))
    frames = [_locate_frame(found, content, number, source) for number in range(len(pixels))]
    for segment in content.SegmentSequence:
        number, mask = int(segment.SegmentNumber), np.zeros(source.shape, bool)
        if kind == "LABELMAP" and number == 0:
            continue  # the background
        for frame, plane in zip(frames, pixels, strict=True):
            if kind == "LABELMAP" or frame.segment == number:
                mask[frame.index] |= frame.lay(plane == number if kind == "LABELMAP" else plane > 0)
        yield Structure(str(segment.get("SegmentLabel", "")).strip() or f"segment {number}", mask)


@dataclass(frozen=True)
class _Frame:
    """Where a frame of a segmentation lies: its slice, its segment, and how its plane is laid on the slice."""

    index: int
    segment: int
    lay: Callable[[Mask], Mask]


def _locate_frame(found: StructureFile, content: Any, number: int, source: SourceSlices) -> _Frame:
    own, shared = content.PerFrameFunctionalGroupsSequence[number], content.SharedFunctionalGroupsSequence[0]

    def find(sequence: str) -> Any:
        return (own[sequence] if sequence in own else shared[sequence]).value[0]

    position = np.array(find("PlanePositionSequence").ImagePositionPatient, dtype=float)
    directions = np.array(find("PlaneOrientationSequence").ImageOrientationPatient, dtype=float).reshape(2, 3)
    spacing = np.array(find("PixelMeasuresSequence").PixelSpacing, dtype=float)
    segment = 0
    if "SegmentIdentificationSequence" in own or "SegmentIdentificationSequence" in shared:
        segment = int(find("SegmentIdentificationSequence").ReferencedSegmentNumber)
    size = (int(content.Rows), int(content.Columns))
    ends = np.array([(0, 0), (size[0] - 1, size[1] - 1)]) * spacing
    corners = position + ends[:, :1] * directions[1] + ends[:, 1:] * directions[0]
    heights = corners @ source.normal
    index = _find_slice(float(heights.mean()), float(np.ptp(heights)), source)
    if index is not None:
        # From (row, column) of the slice to (row, column) of the frame.
        start = (source.slices[index].position - position) @ directions[::-1].T / spacing
        steps = (source.directions[::-1] * np.array(source.spacing)[:, None]) @ directions[::-1].T / spacing
        if _has_same_voxels(start, steps, source.shape[1:]):
            return _Frame(index, segment, _make_layer(np.rint(start), np.rint(steps), source.shape[1:]))
    raise DataError(
        f"{found.file}: frame {number + 1} of the segmentation does not lie on the voxels of the series. It was made "
        "on another series, or resampled; name that series, or resample the segmentation to this one first."
    )


def _has_same_voxels(start: NDArray[np.float64], steps: NDArray[np.float64], shape: tuple[int, int]) -> bool:
    """Report whether each voxel of a slice is one voxel of the frame, or lies outside of it; axes may be exchanged."""
    whole = np.abs(np.rint(steps))
    if (whole.sum(axis=0) != 1).any() or (whole.sum(axis=1) != 1).any():
        return False
    corners = np.array([(row, column) for row in (0, shape[0] - 1) for column in (0, shape[1] - 1)])
    apart = (start + corners @ steps) - (np.rint(start) + corners @ np.rint(steps))
    return bool(np.abs(apart).max() < _SAME_VOXEL)


def _make_layer(
    start: NDArray[np.float64], steps: NDArray[np.float64], shape: tuple[int, int]
) -> Callable[[Mask], Mask]:
    """Return a function that lays a plane on a slice; outside of the plane, the slice has no structure."""
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])
    places = [(start[axis] + rows * steps[0, axis] + columns * steps[1, axis]).astype(int) for axis in (0, 1)]

    def lay(plane: Mask) -> Mask:
        inside = np.ones(shape, bool)
        for place, length in zip(places, plane.shape, strict=True):
            inside &= (place >= 0) & (place < length)
        row, column = (np.clip(place, 0, length - 1) for place, length in zip(places, plane.shape, strict=True))
        laid: Mask = inside & plane[row, column]
        return laid

    return lay
