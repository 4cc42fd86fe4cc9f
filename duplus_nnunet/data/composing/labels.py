"""One case at a time: its headers are compared, its label map is read once, and written with other values.

In: file names and a table of values. Out: what the case holds. Runs in worker processes, so little is imported.
"""

import contextlib
import gzip
import math
import os
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from duplus_nnunet.errors import DataError

# Parts of a voxel by which image and label may lie apart; nnU-Net compares the spacing like this.
_FARTHEST = 0.5
_SPACING_TOLERANCE = 1e-5
_BLOCK = 1 << 22


@dataclass(frozen=True)
class LabelJob:
    """What is to be done for a case.

    Attributes:
        name: What the case is called in messages.
        images: Its image files.
        label: Its label map, None for a test case without.
        table: New value of each value that the label map may hold.
        new_images: Where links to the images go; nowhere if empty.
        new_label: Where the label map goes.
    """

    name: str
    images: tuple[str, ...]
    label: str | None
    table: Mapping[int, int]
    new_images: tuple[str, ...] = ()
    new_label: str | None = None


@dataclass(frozen=True)
class LabelSummary:
    """What a case holds: the old values in its label map, and where its axes run (such as `LPS`)."""

    values: frozenset[int]
    orientation: str


def carry_out(job: LabelJob) -> LabelSummary:
    """Check a case, and write it if the job says where.

    Raises:
        DataError: A file is damaged, grids differ, or the label map holds a value that has no meaning.
    """
    headers = [_read_header(job.name, file) for file in job.images]
    for file, header in zip(job.images[1:], headers[1:], strict=True):
        _compare(job.name, (job.images[0], headers[0]), (file, header))
    values: frozenset[int] = frozenset()
    if job.label is not None:
        _compare(job.name, (job.images[0], headers[0]), (job.label, _read_header(job.name, job.label)))
        values = _rewrite(job, job.label)
    for file, new in zip(job.images, job.new_images, strict=False):
        link_file(file, new)
    direction = headers[0].GetDirection()
    return LabelSummary(values, SimpleITK.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(direction))


def link_file(file: str, new: str) -> None:
    """Link a file to where it really lies, or copy it where there are no links."""
    real = os.path.realpath(file)
    try:
        os.symlink(real, new)
    except (OSError, NotImplementedError):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        shutil.copyfile(real, new)


def _rewrite(job: LabelJob, file: str) -> frozenset[int]:
    _check_whole(job.name, file)
    try:
        image = SimpleITK.ReadImage(file)
        array = SimpleITK.GetArrayFromImage(image)
    except RuntimeError as error:
        raise DataError(_say_damaged(job.name, file, error)) from error
    held = np.unique(array)
    with np.errstate(invalid="ignore"):
        values = held.astype(np.int64)
    if not np.array_equal(values, held):
        odd = held[values != held][0]
        raise DataError(f"{job.name}: {file} holds the value {odd}; expected whole numbers. Save it as a label map.")
    strange = [int(value) for value in values if int(value) not in job.table]
    if strange:
        raise DataError(
            f"{job.name}: {file} holds the value {strange[0]}, which no label in dataset.json has; expected "
            f"{', '.join(map(str, sorted(job.table)))}. Mend the label map or add the label."
        )
    if job.new_label is not None:
        new = np.array([job.table[int(value)] for value in values])
        if np.array_equal(new, values):
            link_file(file, job.new_label)
        else:
            _write(new[np.searchsorted(values, array)], image, job.new_label)
    return frozenset(int(value) for value in values if value)


def _write(array: Any, image: Any, file: str) -> None:
    new = SimpleITK.GetImageFromArray(array.astype(np.uint8 if array.max(initial=0) < 255 else np.uint16))
    new.CopyInformation(image)
    try:
        SimpleITK.WriteImage(new, file, True)
    except RuntimeError as error:
        raise DataError(f"{file} cannot be written ({_shorten(error)}). Is the disk full?") from error


def _read_header(name: str, file: str) -> Any:
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError(_say_damaged(name, file, error)) from error
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        raise DataError(
            f"{name}: {file} has {reader.GetDimension()} dimensions and {reader.GetNumberOfComponents()} values a "
            "voxel; expected 3 and 1. Save each channel as a 3D image of its own."
        )
    if file.endswith(".gz") and not _ends_as_it_should(file, reader):
        _check_whole(name, file)
    return reader


def _ends_as_it_should(file: str, reader: Any) -> bool:
    """Compare a gzip file's last word, its content's length, with the header: a look that reads no voxel.

    Files of several gzip blocks do not pass either, so who fails is looked at in full.
    """
    if not reader.HasMetaDataKey("vox_offset"):
        return False
    voxels = math.prod(reader.GetSize()) * int(reader.GetMetaData("bitpix")) // 8
    with Path(file).open("rb") as opened:
        opened.seek(-4, os.SEEK_END)
        length = int.from_bytes(opened.read(4), "little")
    return bool(length == (int(float(reader.GetMetaData("vox_offset"))) + voxels) % (1 << 32))


def _check_whole(name: str, file: str) -> None:
    """Read a gzip file to its end: SimpleITK fills up with zeros what is cut off, and says nothing."""
    if not file.endswith(".gz"):
        return
    try:
        with gzip.open(file) as opened:
            while opened.read(_BLOCK):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(_say_damaged(name, file, error)) from error


def _compare(name: str, first: tuple[str, Any], second: tuple[str, Any]) -> None:
    (file, one), (other_file, other) = first, second
    same = one.GetSize() == other.GetSize()
    same = same and np.allclose(one.GetSpacing(), other.GetSpacing(), rtol=_SPACING_TOLERANCE)
    if not same or np.abs(_corners(one) - _corners(other)).max() > _FARTHEST * min(one.GetSpacing()):
        raise DataError(
            f"{name}: {file} and {other_file} lie on different grids: {_say_grid(one)} and {_say_grid(other)}. "
            "Resample one to the other's."
        )


def _corners(header: Any) -> Any:
    """Return the world coordinates of the first and the last voxel of each axis, shape (4, 3), in mm."""
    extent = (np.array(header.GetSize()) - 1) * np.array(header.GetSpacing())
    steps = np.asarray(header.GetDirection()).reshape(3, 3).T * extent[:, None]
    return np.vstack([np.zeros(3), steps]) + np.array(header.GetOrigin())


def _say_grid(header: Any) -> str:
    spacing, origin = (
        ", ".join(f"{value:.4g}" for value in values) for values in (header.GetSpacing(), header.GetOrigin())
    )
    directions = ", ".join(f"{value:.3g}" for value in header.GetDirection())
    return f"size {header.GetSize()}, spacing ({spacing}) mm, origin ({origin}), direction ({directions})"


def _say_damaged(name: str, file: str, error: Exception) -> str:
    return f"{name}: {file} cannot be read ({_shorten(error)}). Copy or convert it again."


def _shorten(error: Exception) -> str:
    """Keep the last line, which is what ITK has to say."""
    return str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
