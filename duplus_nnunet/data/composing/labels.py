"""Checks the files of one case and writes its label map with new values; runs in worker processes."""

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from duplus_nnunet.data.image_headers import inspect_image
from duplus_nnunet.data.label_maps import check_labels, require_finite
from duplus_nnunet.errors import DataError

# Largest distance between corresponding corners of two grids, in voxels.
_FARTHEST = 0.5
# nnU-Net compares spacings with this tolerance.
_SPACING_TOLERANCE = 1e-5


@dataclass(frozen=True)
class LabelJob:
    """The files of one case and where to write them.

    Attributes:
        name: Name of the case in messages.
        images: Its image files.
        label: Its label map; None for a test case without one.
        table: New value of each value that may occur in the label map.
        new_images: Paths of the links to the images; no links are made if empty.
        new_label: Path of the new label map; None if it is not written.
    """

    name: str
    images: tuple[str, ...]
    label: str | None
    table: Mapping[int, int]
    new_images: tuple[str, ...] = ()
    new_label: str | None = None


@dataclass(frozen=True)
class LabelSummary:
    """What a case holds.

    Attributes:
        values: The values in its original label map, without 0.
        orientation: The orientation of its image, such as `LPS`.
        rounded: Number of voxels of that label map whose value was not whole.
    """

    values: frozenset[int]
    orientation: str
    rounded: int = 0


def process_case(job: LabelJob) -> LabelSummary:
    """Check a case, and write it if the job has paths to write to.

    Raises:
        DataError: A file is damaged, grids differ, or a value in the label map belongs to no label.
    """
    headers = [_read_header(job.name, file) for file in job.images]
    for file, header in zip(job.images[1:], headers[1:], strict=True):
        _compare(job.name, (job.images[0], headers[0]), (file, header))
    values, rounded = frozenset[int](), 0
    if job.label is not None:
        _compare(job.name, (job.images[0], headers[0]), (job.label, _read_header(job.name, job.label)))
        values, rounded = _rewrite(job, job.label)
    for file, new in zip(job.images, job.new_images, strict=False):
        link_file(file, new)
    direction = headers[0].GetDirection()
    orientation = SimpleITK.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(direction)
    return LabelSummary(values, orientation, rounded)


def link_file(file: str, new: str) -> None:
    """Create a symbolic link to a file, or copy it where links are not supported."""
    real = os.path.realpath(file)
    try:
        os.symlink(real, new)
    except (OSError, NotImplementedError):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        shutil.copyfile(real, new)


def _rewrite(job: LabelJob, file: str) -> tuple[frozenset[int], int]:
    require_finite(Path(file))
    try:
        image = SimpleITK.ReadImage(file)
        array = SimpleITK.GetArrayFromImage(image)
    except RuntimeError as error:
        raise DataError(_describe_damage(job.name, file, error)) from error
    label_map = check_labels(array, f"{job.name}: {file}", job.table)
    if job.new_label is not None:
        values = np.array(sorted(label_map.values))
        new = np.array([job.table[int(value)] for value in values])
        if np.array_equal(new, values) and not label_map.rounded:
            link_file(file, job.new_label)
        else:
            _write(new[np.searchsorted(values, label_map.labels)], image, job.new_label)
    return label_map.values - {0}, label_map.rounded


def _write(array: Any, image: Any, file: str) -> None:
    new = SimpleITK.GetImageFromArray(array.astype(np.uint8 if array.max(initial=0) < 255 else np.uint16))
    new.CopyInformation(image)
    try:
        SimpleITK.WriteImage(new, file, True)
    except RuntimeError as error:
        raise DataError(f"{file} cannot be written ({_shorten(error)}). Is the disk full?") from error


def _read_header(name: str, file: str) -> Any:
    """Check the header of a file, and return SimpleITK's reader of it.

    Raises:
        DataError: The file cannot be used.
    """
    try:
        inspect_image(Path(file))
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    return reader


def _compare(name: str, first: tuple[str, Any], second: tuple[str, Any]) -> None:
    (file, header), (other_file, other) = first, second
    same = header.GetSize() == other.GetSize()
    same = same and np.allclose(header.GetSpacing(), other.GetSpacing(), rtol=_SPACING_TOLERANCE)
    if not same or np.abs(_corners(header) - _corners(other)).max() > _FARTHEST * min(header.GetSpacing()):
        raise DataError(
            f"{name}: {file} and {other_file} have different grids: {_describe_grid(header)} and "
            f"{_describe_grid(other)}. Resample one to the grid of the other."
        )


def _corners(header: Any) -> Any:
    """Return the world coordinates of the first and the last voxel of each axis, shape (4, 3), in mm."""
    extent = (np.array(header.GetSize()) - 1) * np.array(header.GetSpacing())
    steps = np.asarray(header.GetDirection()).reshape(3, 3).T * extent[:, None]
    return np.vstack([np.zeros(3), steps]) + np.array(header.GetOrigin())


def _describe_grid(header: Any) -> str:
    spacing, origin = (
        ", ".join(f"{value:.4g}" for value in values) for values in (header.GetSpacing(), header.GetOrigin())
    )
    directions = ", ".join(f"{value:.3g}" for value in header.GetDirection())
    return f"size {header.GetSize()}, spacing ({spacing}) mm, origin ({origin}), direction ({directions})"


def _describe_damage(name: str, file: str, error: Exception) -> str:
    return f"{name}: {file} cannot be read ({_shorten(error)}). Copy or convert it again."


def _shorten(error: Exception) -> str:
    """Keep the last line, which holds ITK's own message."""
    return str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
