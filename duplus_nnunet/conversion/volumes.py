"""Images as arrays with their affine: read from NIfTI files, DICOM series and PNG masks, and written as NIfTI."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.dicom import reading as dicom_reading
from duplus_nnunet.dicom.finding import find_series
from duplus_nnunet.dicom.series import Series
from duplus_nnunet.dicom.tilt import straighten_labels
from duplus_nnunet.errors import DataError
from duplus_nnunet.files import open_new_file

Array = NDArray[Any]

# Largest distance between corresponding corners of equal grids, in voxels.
FARTHEST = 0.5


@dataclass(frozen=True)
class Volume:
    """An image.

    Attributes:
        array: Voxels in the order of the file, (x, y, z), or (x, y, z, frame).
        affine: From voxel indices to mm, towards right, front and head (RAS+), 4 x 4.
        file: Where it comes from, for messages.
        notes: What was corrected in reading, a sentence each.
    """

    array: Array
    affine: NDArray[np.float64]
    file: Path
    notes: tuple[str, ...] = ()

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Distance of neighbouring voxels along each axis, in mm."""
        spacing: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3], axis=0)
        return spacing

    def with_array(self, array: Array) -> "Volume":
        """Return other voxels on the same grid."""
        return replace(self, array=array)


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file, or the DICOM series in a folder.

    Raises:
        DataError: It cannot be read.
        HostError: It is DICOM, and the extra `dicom` is not installed.
    """
    if path.is_dir():
        return read_series(path)
    try:
        image: Any = nibabel.load(path)
        return Volume(np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64), path)
    except Exception as error:  # what nibabel raises on a damaged file depends on the damage
        raise DataError(f"{path} cannot be read: {error}. Download it again.") from error


def read_series(folder: Path) -> Volume:
    """Read the one DICOM series of a folder as predictions do; PET becomes SUV, a gantry tilt is straightened.

    Raises:
        DataError: The folder holds no series or several, or the series cannot be read.
        HostError: The extra `dicom` is not installed.
    """
    volume = dicom_reading.read_volume(_find_series(folder))
    array = dicom_reading.compact(volume.values).transpose(2, 1, 0)
    return Volume(array, volume.affine[:, [2, 1, 0, 3]], folder, volume.notes)


def read_masks(folder: Path, series: Path) -> Array:
    """Read PNG masks, one for each slice of a DICOM series, as an array on its grid (x, y, z).

    Masks and slices correspond in the order of their names; both are put in the order of the slices' positions.

    Raises:
        DataError: There are not as many masks as slices, or a mask has another size.
        HostError: The extra `dicom` is not installed.
    """
    from skimage.io import imread

    files, found = sorted(folder.glob("*.png")), _find_series(series)
    names = sorted(one.file for one in found.slices)
    if len(files) != len(names):
        raise DataError(f"{folder} has {len(files)} masks, {series} has {len(names)} slices. Download them again.")
    masks = [np.asarray(imread(files[names.index(one.file)])) for one in found.slices]
    if any(mask.shape != found.shape[1:] for mask in masks):
        raise DataError(
            f"{folder}: masks are not grey pictures of {_by(found.shape[1:])} pixels, as the slices of {series} are. "
            "Download them again."
        )
    labels = np.stack(masks)
    if found.tilt:
        labels = straighten_labels(labels, found)
    return labels.transpose(2, 1, 0)


def _find_series(folder: Path) -> Series:
    study = find_series(folder)
    usable = [one for one in study.series if one.is_usable]
    if not usable or len(study.series) > 1:
        reasons = " ".join(reason for one in study.series for reason in one.refusals)
        raise DataError(f"{folder} holds {len(study.series)} series; expected one that can be read. {reasons}".strip())
    return usable[0]


def find_grid_difference(first: Volume, second: Volume) -> str:
    """Describe how the grids of two images differ; empty if they do not.

    Grids are equal if they have as many voxels, and no corner is farther from its counterpart than half a voxel.
    """
    shapes = first.array.shape[:3], second.array.shape[:3]
    if shapes[0] != shapes[1]:
        return f"{second.file} has {_by(shapes[1])} voxels, {first.file} has {_by(shapes[0])}"
    corners = np.array(np.meshgrid(*[(0, length - 1) for length in shapes[0]], [1], indexing="ij")).reshape(4, -1)
    distance = np.abs((np.linalg.inv(first.affine) @ (second.affine @ corners) - corners)[:3]).max()
    if distance > FARTHEST:
        return f"{second.file} lies up to {distance:.1f} voxels from {first.file}"
    return ""


def write_volume(volume: Volume, file: Path, dtype: Any = None) -> None:
    """Write an image as NIfTI, atomically."""
    array = volume.array if dtype is None else volume.array.astype(dtype)
    image = nibabel.Nifti1Image(_shrink(array), volume.affine)
    image.header.set_xyzt_units("mm")
    with open_new_file(file) as new:
        nibabel.save(image, new)


def _shrink(array: Array) -> Array:
    """Store 64 bits in 32, which is all that readers of NIfTI expect, where no whole number gets lost."""
    if array.dtype == np.float64:
        return array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        return array.astype(np.int32)
    return array.astype(np.uint8) if array.dtype == bool else array


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
